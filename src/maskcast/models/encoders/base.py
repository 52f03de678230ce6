"""An encoder: frames in, feature maps of falling size out.

Built by its config it has ``out_channels``, one number per map, and ``output_stride``, the last map's; its
``forward`` takes normalised frames (B, 3, H, W), height and width multiples of that stride, and returns the maps,
finest first.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Returns frames with their edge repeated below and to the right, so that both sizes are multiples."""
    wider_BCHW = edge_padded(x_BCHW, multiple)
    return x_BCHW if wider_BCHW is x_BCHW else wider_BCHW.contiguous(memory_format=torch.channels_last)


def edge_padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Returns the same in whatever memory format PyTorch gives it."""
    below, right = -x_BCHW.shape[2] % multiple, -x_BCHW.shape[3] % multiple
    return F.pad(x_BCHW, (0, right, 0, below), mode="replicate") if below or right else x_BCHW
