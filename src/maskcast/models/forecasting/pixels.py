"""Which pixels of a batch enter a training step's cross entropy: few are enough, and drawn anew at every step.

On a CPU they are slices; on a GPU their indices are drawn there, so that a step can be recorded.

Shapes: B clips, h horizon, S steps drawn, K classes, H height, W width, I rows and J columns drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.labels import IGNORE
from maskcast.models.arithmetic import has_kernels
from maskcast.models.forecasting.label_codec import MOST_CLASSES, EmbeddedClasses
from maskcast.models.objects.picks import ALL, Pick, picked, picked_pixels
from maskcast.models.objects.scene import Scene
from maskcast.models.objects.warp import Renderer


class Draw(NamedTuple):
    """Some steps of the forecast, and some rows and columns of the picture at each of them.

    Indices of rows and columns may lie beyond the picture, as many as there are for another offset; these do not
    count.
    """

    steps: Pick
    rows: Pick
    columns: Pick


@dataclass(frozen=True)
class Pixels:
    """How many pixels count."""

    steps: int
    """Future frames."""
    stride: int
    """Every how many rows and columns."""
    clips: int
    """Clips, where objects move and so learn their trajectories from all clips; else all clips count."""

    def draw(self, horizon: int, size: Sequence[int], device: torch.device, *, all_steps: bool) -> Draw:
        """Draws from torch's random state.

        Args:
            horizon: steps to choose from.
            size: height and width of the picture.
            device: where the pixels are.
            all_steps: take every step.
        """
        steps = ALL if all_steps else draw_steps(horizon, self.steps, device)
        if device.type != "cuda":
            offsets = torch.randint(self.stride, (2,)).tolist()
            return Draw(steps, *(slice(offset, None, self.stride) for offset in offsets))
        if self.stride == 1:
            return Draw(steps, ALL, ALL)
        rows, columns = (
            offset + torch.arange(0, side, self.stride, device=device)
            for offset, side in zip(torch.randint(self.stride, (2, 1), device=device), size, strict=True)
        )
        return Draw(steps, rows, columns)


def draw_steps(horizon: int, count: int, device: torch.device) -> Pick:
    """Draws ``count`` of the steps of a horizon, or all if there are no more, from torch's random state."""
    if device.type != "cuda":
        return sorted(torch.randperm(horizon)[:count].tolist())
    if count >= horizon:
        return ALL
    return torch.rand(horizon, device=device).argsort()[:count].sort().values


def pixel_loss(logits_BSKIJ: Tensor, target_BhHW: Tensor, drawn: Draw, counted: int) -> tuple[Tensor, Tensor]:
    """Returns the sum of the cross entropy over the pixels drawn, and their number.

    Args:
        logits_BSKIJ: of these pixels.
        target_BhHW: class ids of all pixels, uint8; 255 is left out.
        drawn: the pixels.
        counted: clips that count; those after them are left out.
    """
    target_BSIJ = picked(picked_pixels(target_BhHW, drawn.rows, drawn.columns), 1, drawn.steps)
    target_BSIJ = target_BSIJ.to(torch.long, copy=True)
    target_BSIJ[counted:] = IGNORE
    for which, axis in ((drawn.rows, 2), (drawn.columns, 3)):
        if isinstance(which, Tensor):
            beyond = (which >= target_BhHW.shape[axis]).unflatten(0, (-1, *[1] * (3 - axis)))
            target_BSIJ = target_BSIJ.masked_fill(beyond, IGNORE)
    summed = F.cross_entropy(
        logits_BSKIJ.flatten(0, 1), target_BSIJ.flatten(0, 1), ignore_index=IGNORE, reduction="sum"
    )
    return summed, (target_BSIJ != IGNORE).sum()


def needs_no_logits(drawn: Draw, ids: Tensor, codec: EmbeddedClasses) -> bool:
    """Whether a kernel takes the loss of all pixels, if objects stay: on a GPU."""
    every = drawn.rows is ALL and drawn.columns is ALL
    return every and codec.num_classes <= MOST_CLASSES and has_kernels(ids)


def still_pixel_loss(
    codec: EmbeddedClasses, render: Renderer | None, scene: Scene, states: list[Tensor], target_BSHW: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns what ``pixel_loss`` does of all pixels of objects that stay, whose logits are never written.

    Args:
        codec: of the network.
        render: None for one that forecasts every pixel anew.
        scene: with a slot for each class (``fixed_shapes``).
        states: of the S steps drawn, (B, C, H/stride, W/stride) each.
        target_BSHW: class ids at these steps.
    """
    from maskcast.models.kernels.still_loss import still_loss

    last_BHW, like = scene.last_mask, codec.classes
    features = codec.features(states, last_BHW[:, :: codec.fine, :: codec.fine])
    if render is None:
        base_BK, bonus = like.new_zeros(len(last_BHW), codec.num_classes), like.new_zeros(())
    else:
        base_BK, bonus = render.still(scene.object_BN, scene.trajectory)
    summed, count = still_loss(features, codec.classes, base_BK, bonus, last_BHW, target_BSHW)
    return summed.float(), count


def stacked(states: list[Tensor], steps: Pick) -> Tensor:
    """Returns the states (B, S, ...) of some steps, of those (B, ...) of all."""
    if isinstance(steps, Tensor):
        return torch.stack(states, dim=1).index_select(1, steps)
    return torch.stack(states[steps] if isinstance(steps, slice) else [states[step] for step in steps], dim=1)
