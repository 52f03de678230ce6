"""The vanilla four-level U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with norms and bilinear upsampling.

Its down path is an encoder of its own, which ``pretrain_encoder`` can train without labels.

Legend: B batch, C channels, H height, W width, K classes.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.models.encoders.unet import UNetEncoder, double_conv


class UNet(nn.Module):
    """Four levels of two 3x3 convolutions, each with batch norm and ReLU, and skip connections.

    The decoder doubles the size bilinearly (corners aligned), appends the skip and halves the channels; a 1x1
    convolution gives the logits. With width 64 and 49 classes it has 7 788 849 parameters.
    """

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.down = UNetEncoder(width)
        self.up = nn.ModuleList(double_conv(a + b, a) for a, b in pairwise(self.down.out_channels))
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns logits_BKHW; height and width must be multiples of 8."""
        *skips, x_BCHW = self.down(x_BCHW)
        for block in reversed(self.up):
            x_BCHW = F.interpolate(x_BCHW, scale_factor=2, mode="bilinear", align_corners=True)
            x_BCHW = block(torch.cat([x_BCHW, skips.pop()], 1))
        logits_BKHW: Tensor = self.head(x_BCHW)
        return logits_BKHW
