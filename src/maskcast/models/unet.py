"""The vanilla four-level U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with norms and bilinear upsampling.

Legend: B batch, C channels, H height, W width, K classes.
"""

from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.masker_base import MaskerModelConfig

LEVELS = 4


class UNet(nn.Module):
    """Four levels of two 3x3 convolutions, each with batch norm and ReLU, and skip connections.

    The encoder has ``width * (1, 2, 4, 8)`` channels with 2x2 max pooling in between; the decoder doubles the
    size bilinearly (corners aligned), appends the skip and halves the channels; a 1x1 convolution gives the
    logits. With width 64 and 49 classes it has 7 788 849 parameters.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(LEVELS)]
        self.down = nn.ModuleList(_double_conv(a, b) for a, b in zip([3, *channels[:-1]], channels, strict=True))
        self.up = nn.ModuleList(_double_conv(a + b, a) for a, b in pairwise(channels))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns logits_BKHW; height and width must be multiples of 8."""
        skips = []
        for level, block in enumerate(self.down):
            x_BCHW = block(x_BCHW if level == 0 else F.max_pool2d(x_BCHW, 2))
            skips.append(x_BCHW)
        skips.pop()
        for block in reversed(self.up):
            x_BCHW = F.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=True)
            x_BCHW = block(torch.cat([x_BCHW, skips.pop()], 1))
        logits_BKHW: Tensor = self.head(x_BCHW)
        return logits_BKHW


class UNetConfig(MaskerModelConfig):
    """The vanilla U-Net."""

    arch: Literal["unet"] = "unet"
    width: int = Field(64, ge=1)
    """Channels of the first level; each level below has twice as many."""

    def network(self, num_classes: int) -> tuple[nn.Module, int]:
        """Returns the U-Net, for sizes divisible by 8."""
        return UNet(self.width, num_classes), 2 ** (LEVELS - 1)


def _double_conv(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        # no bias: the batch norm that follows has one
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(True)]
    return nn.Sequential(*layers)
