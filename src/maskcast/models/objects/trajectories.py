"""Paths: where objects go, and how wrong a forecast of that is.

Shapes: B clips, T context frames, h horizon, N objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from maskcast.distributed import all_sum
from maskcast.models.objects.tracks import Sight, Tracks

SMALL = 0.02  # spread of a small object
SIZE_WEIGHT, BORDER_WEIGHT, DOUBT_WEIGHT = 0.5, 0.3, 0.1  # of errors, beside 1 for places
HALF_SIDE = 3**0.5  # of a rectangle, in its spread


@dataclass(frozen=True)
class Path:
    """The forecast of every object, relative to its last sight."""

    centre_BhN2: Tensor  # (y, x) in picture heights from the picture's centre
    log_scale_BhN2: Tensor  # log of the size relative to the last sight, (y, x)
    doubt_BhN2: Tensor  # mean error of the centre to be expected, (y, x)

    def pick(self, clips: slice = slice(None), steps: Sequence[int] | slice = slice(None)) -> "Path":
        """Returns the path of some clips at some steps."""
        fields = self.centre_BhN2, self.log_scale_BhN2, self.doubt_BhN2
        return Path(*(field[clips][:, steps] for field in fields))


def still(tracks: Tracks, horizon: int) -> Path:
    """Returns the path of objects that stay where they were seen last."""
    centre = tracks.last_sight().centre_BN2[:, None].expand(-1, horizon, -1, -1)
    return Path(centre, torch.zeros_like(centre), torch.zeros_like(centre))


def path_loss(path: Path, context: Tracks, future: Tracks) -> dict[str, Tensor]:
    """Returns the errors of ``place``, ``size``, ``border`` and ``doubt``, each over the objects that tell it.

    All but ``border`` count where an object that was seen is visible and does not touch the border; ``_border``
    takes the rest. Errors of place are in units of the object's size and grow like their square near 0, like their
    length far off. ``doubt`` is the negative log-likelihood of the errors of the centre, taken as Laplace
    distributed (their tails are heavy: a collision that was missed); it moves no path.
    """
    sight = context.last_sight()
    counts = (future.visible_BTN & ~future.cut_BTN & sight.exists_BN[:, None]).to(path.centre_BhN2.dtype)
    total = all_sum(counts.sum()).clamp(min=1)
    unit = future.spread_BTN2.mean(-1, keepdim=True).clamp(min=SMALL)
    error = ((path.centre_BhN2 - future.centre_BTN2) / unit).square().sum(-1)
    place = all_sum((_robust(error) * counts).sum()) / total
    growth = (future.spread_BTN2.clamp(min=1e-3) / sight.spread_BN2[:, None].clamp(min=1e-3)).log()
    size = all_sum(((path.log_scale_BhN2 - growth).abs().sum(-1) * counts).sum()) / total
    missed = (path.centre_BhN2.detach() - future.centre_BTN2).abs()
    surprise = (missed / path.doubt_BhN2 + path.doubt_BhN2.log()).sum(-1)
    doubt = all_sum((surprise * counts).sum()) / total
    return {"place": place, "size": size, "border": _border(path, context, future, sight), "doubt": doubt}


def path_total(errors: dict[str, Tensor]) -> Tensor:
    """Returns the weighted sum of what ``path_loss`` returned."""
    learned = errors["place"] + SIZE_WEIGHT * errors["size"] + BORDER_WEIGHT * errors["border"]
    return learned + DOUBT_WEIGHT * errors["doubt"]


def _border(path: Path, context: Tracks, future: Tracks, sight: Sight) -> Tensor:
    """Returns the error of objects at the picture's border and beyond.

    The box of an object is that of a rectangle with its spread. Where an object is cut by the border, the box of
    its part is compared with the forecast one, cut alike; where it has left, no part of the box may lie in the
    picture. Without this an object that leaves could be forecast anywhere.
    """
    limit_2 = future.centre_BTN2.new_tensor([0.5, future.aspect / 2])
    size_BN2 = HALF_SIDE * sight.spread_BN2[:, None] * torch.exp(path.log_scale_BhN2.clamp(-2, 2))
    low, high = path.centre_BhN2 - size_BN2, path.centre_BhN2 + size_BN2
    unit_BN = sight.spread_BN2.mean(-1).clamp(min=SMALL)[:, None]
    exists = sight.exists_BN[:, None]
    part_BhN = future.visible_BTN & future.cut_BTN & exists
    half = HALF_SIDE * future.spread_BTN2
    sides = torch.cat(
        [_held(low, limit_2) - future.centre_BTN2 + half, _held(high, limit_2) - future.centre_BTN2 - half], -1
    )
    inside = torch.cat([high + limit_2, limit_2 - low], -1).amin(-1).clamp(min=0)
    gone_BhN = _gone(context, future) & exists
    error = _robust((sides / unit_BN[..., None]).square().sum(-1) / 2) * part_BhN
    error = error + _robust((inside / unit_BN).square()) * gone_BhN
    return all_sum(error.sum()) / all_sum((part_BhN.sum() + gone_BhN.sum()).to(error.dtype)).clamp(min=1)


def _gone(context: Tracks, future: Tracks) -> Tensor:
    """Returns (B, h, N) whether an object is not visible and touched the border when it was seen last."""
    visible = torch.cat([context.visible_BTN[:, -1:], future.visible_BTN], 1)
    cut = torch.cat([context.cut_BTN[:, -1:], future.cut_BTN], 1)
    at_border, gone = cut[:, 0], []
    for now_visible, now_cut in zip(visible.unbind(1), cut.unbind(1), strict=True):
        at_border = torch.where(now_visible, now_cut, at_border)
        gone.append(at_border & ~now_visible)
    return torch.stack(gone[1:], 1)


def _held(side: Tensor, limit_2: Tensor) -> Tensor:
    """Returns the sides of a box held to the picture, plus a tenth of what lies beyond, for the gradient."""
    held = torch.minimum(torch.maximum(side, -limit_2), limit_2)
    return held + 0.1 * (side - held)


def _robust(squared: Tensor) -> Tensor:
    return (1 + squared).sqrt() - 1
