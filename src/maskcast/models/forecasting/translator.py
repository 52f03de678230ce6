"""A translator: forecasts the states of all future frames from those of all context frames in one pass.

It consists of blocks of gated spatiotemporal attention (Tan et al. 2022, SimVP v2, arXiv 2211.12509). The states
of all context frames are concatenated as channels.

Shapes: B clips, T context frames, h future frames, C channels of a frame, M = T * C, H height, W width (of the
state).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskcast.errors import MaskcastError
from maskcast.reading import pluralize

MLP_RATIO = 2
START = 1e-2  # initial weight of a block's branches, so that deep stacks train from the first step


class Translator(nn.Module):
    """Network from past states to future states.

    Args:
        channels: C.
        context: number of context frames used: the last ones; a shorter context is padded with zeros.
        horizon: most future frames.
        blocks: number of attention blocks.
    """

    def __init__(self, channels: int, context: int, horizon: int, blocks: int) -> None:
        super().__init__()
        self.channels, self.context, self.horizon = channels, context, horizon
        width = context * channels
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.out = nn.Conv2d(width, horizon * channels, 1)
        self.fixed_shapes = [f"blocks.{k}.forward" for k in range(blocks)]

    def forward(
        self, seen_BTCHW: Tensor, horizon: int, feed: Callable[[Tensor], Tensor] | None = None
    ) -> list[Tensor]:
        """Returns the states (B, C, H, W) of the ``horizon`` next frames; ``feed`` is not used.

        Raises:
            MaskcastError: the horizon is longer than that of the network.
        """
        if horizon > self.horizon:
            raise MaskcastError(
                f"this model forecasts {pluralize(self.horizon, 'frame')}, got horizon {horizon}; "
                f"train one with model.horizon {horizon}"
            )
        missing = max(0, self.context - seen_BTCHW.shape[1])
        x_BMHW = F.pad(seen_BTCHW[:, -self.context :], (0, 0, 0, 0, 0, 0, missing, 0)).flatten(1, 2)
        for block in self.blocks:
            x_BMHW = block(x_BMHW)
        coming_BhCHW = self.out(x_BMHW).unflatten(1, (self.horizon, self.channels))
        return list(coming_BhCHW.unbind(1))[:horizon]


class Block(nn.Module):
    """Large-kernel attention that gates its input, then an MLP with a depthwise convolution; both residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.project = nn.Conv2d(width, width, 1)
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.far = nn.Conv2d(width, width, 7, padding=9, dilation=3, groups=width)
        self.gate = nn.Conv2d(width, 2 * width, 1)
        self.attended = nn.Conv2d(width, width, 1)
        self.mlp = nn.Sequential(
            nn.GroupNorm(1, width),
            nn.Conv2d(width, MLP_RATIO * width, 1),
            nn.Conv2d(MLP_RATIO * width, MLP_RATIO * width, 3, padding=1, groups=MLP_RATIO * width),
            nn.GELU(),
            nn.Conv2d(MLP_RATIO * width, width, 1),
        )
        self.weight = nn.Parameter(torch.full((2, width, 1, 1), START))

    def forward(self, x_BMHW: Tensor) -> Tensor:
        """Returns the same shape."""
        y_BMHW = F.gelu(self.project(self.norm(x_BMHW)))
        value, gate = self.gate(self.far(self.near(y_BMHW))).chunk(2, dim=1)
        x_BMHW = x_BMHW + self.weight[0] * self.attended(value * torch.sigmoid(gate))
        return x_BMHW + self.weight[1] * self.mlp(x_BMHW)
