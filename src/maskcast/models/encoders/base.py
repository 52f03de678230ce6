"""The interface of encoders: frames in, feature maps of decreasing size out.

An encoder has ``out_channels``, the channels of each map, and ``output_stride``, the stride of the last map.
``forward`` takes normalised frames (B, 3, H, W), whose height and width are multiples of that stride, and returns
the maps, finest first.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Pads frames below and to the right with their edge pixels, to multiples of ``multiple``."""
    wider_BCHW = edge_padded(x_BCHW, multiple)
    return x_BCHW if wider_BCHW is x_BCHW else wider_BCHW.contiguous(memory_format=torch.channels_last)


def edge_padded(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Returns the same, without a guarantee of the memory format."""
    below, right = -x_BCHW.shape[2] % multiple, -x_BCHW.shape[3] % multiple
    return F.pad(x_BCHW, (0, right, 0, below), mode="replicate") if below or right else x_BCHW
