"""A masker: a segmentation network with its normalisation inside, so that bytes go in and logits come out.

Legend: B batch, H height, W width, C = 3 colour channels, K classes.
"""

import torch
from torch import Tensor, nn

from maskcast.models.encoders.base import padded


class Masker(nn.Module):
    """Normalises frames, pads them to what the network needs, and crops its logits back.

    Args:
        network: (B, C, H, W) float -> logits (B, K, H, W), for sizes that are multiples of ``multiple``.
        multiple: what height and width must be divisible by; frames are padded with their edge pixels.

    ``mean`` and ``std``, per channel of frames scaled to [0, 1], are buffers: training sets them, and they are
    saved with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, multiple: int) -> None:
        super().__init__()
        self.network, self.multiple = network.to(memory_format=torch.channels_last), multiple
        self.register_buffer("mean", torch.full((3,), 0.5))
        self.register_buffer("std", torch.full((3,), 0.25))

    def forward(self, frames_BHWC: Tensor) -> Tensor:
        """Returns logits_BKHW (channels_last where the network keeps it) of uint8 RGB frames."""
        height, width = frames_BHWC.shape[1:3]
        x_BCHW = ((frames_BHWC.float() / 255 - self.mean) / self.std).permute(0, 3, 1, 2)  # channels_last, no copy
        logits_BKHW: Tensor = self.network(padded(x_BCHW, self.multiple))
        return logits_BKHW[..., :height, :width]
