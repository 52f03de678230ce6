"""The four-level U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with batch norm and bilinear upsampling.

Its encoder is a separate module, which ``pretrain_encoder`` can train without labels.

Legend: B batch, C channels, H height, W width, K classes.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.arithmetic import has_kernels
from maskcast.models.encoders.unet import DoubleConv, UNetEncoder

Maps = Sequence[Tensor]
Change = Callable[[int, Tensor], Tensor]  # (index of a scale, its map (N, C, H, W)) -> replacement


def as_it_is(scale: int, map_NCHW: Tensor) -> Tensor:
    """Returns the map unchanged."""
    return map_NCHW


class UNet(nn.Module):
    """Four levels of two 3x3 convolutions, each with batch norm and ReLU, and skip connections.

    The decoder doubles the size bilinearly (corners aligned), appends the skip and halves the channels; a 1x1
    convolution gives the logits. With width 64 and 49 classes it has 7 788 849 parameters.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.down = UNetEncoder(width)
        self.up = nn.ModuleList(DoubleConv(a + b, a) for a, b in pairwise(self.down.out_channels))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns logits_BKHW; height and width must be multiples of 8."""
        return self.head(self.decode(self.down(x_BCHW), as_it_is))

    def decode(self, maps: Maps, change: Change) -> Tensor:
        """Returns the head's input, after applying ``change`` to each scale but the finest, coarsest first."""
        *skips, x_BCHW = maps
        for scale, (block, skip_BCHW) in enumerate(zip(reversed(self.up), reversed(skips), strict=True)):
            x_BCHW = block(_up_joined(change(scale, x_BCHW), skip_BCHW))
        return x_BCHW


def _up_joined(small_BCHW: Tensor, skip_BCHW: Tensor) -> Tensor:
    """Doubles the size of a map, and appends the channels of a skip connection."""
    if has_kernels(small_BCHW) and small_BCHW.dtype == skip_BCHW.dtype and min(small_BCHW.shape[2:]) > 1:
        from maskcast.models.kernels.upsampling import up_joined

        return up_joined(small_BCHW, skip_BCHW)
    larger_BCHW = F.interpolate(small_BCHW, scale_factor=2, mode="bilinear", align_corners=True)
    return torch.cat([larger_BCHW, skip_BCHW], 1)
