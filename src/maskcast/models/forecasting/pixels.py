"""Samples the pixels that enter a training step's cross entropy: few are enough if drawn anew at each step.

On a CPU they are slices. On a GPU their indices are drawn on the device, so that a step can be recorded.

Shapes: B clips, h horizon, S sampled steps, K classes, H height, W width, I sampled rows and J sampled columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.labels import IGNORE
from maskcast.models.arithmetic import has_kernels
from maskcast.models.forecasting.label_codec import MAX_CLASSES, EmbeddedClasses
from maskcast.models.objects.picks import ALL, Pick, picked, picked_pixels
from maskcast.models.objects.scene import Scene
from maskcast.models.objects.warp import Renderer


class Draw(NamedTuple):
    """The sampled steps of the forecast, and the sampled rows and columns.

    Indices of rows and columns may lie beyond the image, so that their number does not depend on the offset; these
    pixels do not count.
    """

    steps: Pick
    rows: Pick
    columns: Pick


@dataclass(frozen=True)
class Pixels:
    """How many pixels are sampled."""

    steps: int
    """Number of future frames."""
    stride: int
    """Stride of the rows and columns."""
    clips: int
    """Number of clips, if objects move (trajectories are learned from all clips); else all clips count."""

    def draw(
        self, shape: Sequence[int], device: torch.device, labelled_h: Tensor | None, *, all_steps: bool
    ) -> Draw:
        """Draws a sample with torch's random state.

        Args:
            shape: horizon, and height and width of the image.
            device: of the pixels.
            labelled_h: bool, whether each step has labels, on the device; None if that makes no difference.
            all_steps: take every step.
        """
        horizon, *size = shape
        steps = ALL if all_steps else draw_steps(horizon, self.steps, device, labelled_h)
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


def draw_steps(horizon: int, count: int, device: torch.device, labelled_h: Tensor | None = None) -> Pick:
    """Draws ``count`` steps of a horizon (all if there are fewer) at random (by torch), labelled ones first."""
    if device.type != "cuda":
        drawn_h = torch.randperm(horizon)
        return sorted((drawn_h if labelled_h is None else labelled_first(drawn_h, labelled_h))[:count].tolist())
    if count >= horizon:
        return ALL
    place_h = torch.rand(horizon, device=device)
    if labelled_h is not None:
        place_h = place_h + ~labelled_h
    return place_h.argsort()[:count].sort().values


def labelled_first(drawn_h: Tensor, labelled_h: Tensor) -> Tensor:
    """Returns a permutation of steps with the labelled ones first, otherwise in the same order."""
    return drawn_h[(~labelled_h[drawn_h]).to(torch.uint8).argsort(stable=True)]


def pixel_loss(logits_BSKIJ: Tensor, target_BhHW: Tensor, drawn: Draw, counted: int) -> tuple[Tensor, Tensor]:
    """Returns the sum of the cross entropy over the sampled pixels, and their number.

    Args:
        logits_BSKIJ: of the sampled pixels.
        target_BhHW: class ids of all pixels, uint8; 255 is ignored.
        drawn: the sample.
        counted: number of clips that count, the first ones.
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
    """Whether a GPU kernel can compute the loss of all pixels without logits, if objects stay."""
    every = drawn.rows is ALL and drawn.columns is ALL
    return every and codec.num_classes <= MAX_CLASSES and has_kernels(ids)


def still_pixel_loss(
    codec: EmbeddedClasses, render: Renderer | None, scene: Scene, states: list[Tensor], target_BSHW: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the same as ``pixel_loss``, over all pixels of objects that stay, without storing logits.

    Args:
        codec: of the network.
        render: None if every pixel is forecast anew.
        scene: with a slot for each class (``fixed_shapes``).
        states: of the S sampled steps, (B, C, H/stride, W/stride) each.
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
    """Stacks the states (B, ...) of the picked steps to (B, S, ...)."""
    if isinstance(steps, Tensor):
        return torch.stack(states, dim=1).index_select(1, steps)
    return torch.stack(states[steps] if isinstance(steps, slice) else [states[step] for step in steps], dim=1)
