"""Which pixels of a batch enter a training step's cross entropy: few are enough, and drawn anew at every step.

Shapes: B clips, h horizon, S steps drawn, K classes, H height, W width, I rows and J columns drawn.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.distributed import all_sum
from maskcast.labels import IGNORE


class Draw(NamedTuple):
    """Some steps of the forecast, and some rows and columns of the picture at each of them."""

    steps: list[int]
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Pixels:
    """How many pixels count."""

    steps: int
    """Future frames."""
    stride: int
    """Every how many rows and columns."""
    clips: int
    """Clips, where objects move and so learn their trajectories from all clips; else all clips count."""

    def draw(self, horizon: int, *, all_steps: bool) -> Draw:
        """Draws from torch's random state; ``all_steps`` takes every step of the horizon."""
        steps = list(range(horizon))
        if not all_steps:
            steps = sorted(torch.randperm(horizon)[: self.steps].tolist())
        rows, columns = (slice(offset, None, self.stride) for offset in torch.randint(self.stride, (2,)).tolist())
        return Draw(steps, rows, columns)


def pixel_loss(logits_BSKIJ: Tensor, target_BhHW: Tensor, drawn: Draw, counted: int) -> Tensor:
    """Returns the mean cross entropy over the pixels drawn, of all processes.

    Args:
        logits_BSKIJ: of these pixels.
        target_BhHW: class ids of all pixels, uint8; 255 is left out.
        drawn: the pixels.
        counted: clips that count; those after them are left out.
    """
    target_BSIJ = target_BhHW[:, drawn.steps, drawn.rows, drawn.columns].long()
    target_BSIJ[counted:] = IGNORE
    summed = F.cross_entropy(
        logits_BSKIJ.flatten(0, 1), target_BSIJ.flatten(0, 1), ignore_index=IGNORE, reduction="sum"
    )
    return all_sum(summed) / all_sum((target_BSIJ != IGNORE).sum()).clamp(min=1)
