"""Trajectories of objects, and their losses.

Shapes: B clips, T context frames, h horizon, N objects.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from maskcast.distributed import all_sum
from maskcast.models.objects.picks import ALL, Pick, picked
from maskcast.models.objects.tracks import LastObservation, Tracks

SMALL = 0.02  # size (standard deviation) of a small object, in picture heights
SIZE_WEIGHT, BORDER_WEIGHT, SCALE_WEIGHT = 0.5, 0.3, 0.1  # weights of the terms, relative to 1 for places
DOUBT_WEIGHT = 3.0  # by how much a completed observation's uncertainty increases the unit of its errors
HALF_SIDE = 3**0.5  # half side of a rectangle, in standard deviations


@dataclass(frozen=True)
class Trajectory:
    """The forecast of every object, relative to its last observation."""

    centre_BhN2: Tensor  # (y, x) in picture heights from the picture's centre
    log_size_BhN2: Tensor  # log of the size relative to the last observation, (y, x)
    scale_BhN2: Tensor  # scale of the centre's error (its mean, if Laplace distributed), (y, x)

    def pick(self, clips: slice = ALL, steps: Pick = ALL) -> "Trajectory":
        """Returns a part of the clips and steps."""
        fields = self.centre_BhN2, self.log_size_BhN2, self.scale_BhN2
        return Trajectory(*(picked(field[clips], 1, steps) for field in fields))


def still(tracks: Tracks, horizon: int) -> Trajectory:
    """Returns the trajectories of objects that stay at their last observation."""
    centre = tracks.last_observation().centre_BN2[:, None].expand(-1, horizon, -1, -1)
    return Trajectory(centre, torch.zeros_like(centre), torch.zeros_like(centre))


def trajectory_loss(trajectory: Trajectory, context: Tracks, future: Tracks) -> dict[str, Tensor]:
    """Returns the terms of the loss: ``place``, ``size``, ``border`` and ``doubt``.

    - ``place``: the error of the centre in units of the object's size, quadratic for small errors and linear for
      large ones (logarithmic for completed observations).
    - ``size``: the error of the log size.
    - ``border``: the error of objects at and beyond the border, see ``_border``.
    - ``doubt``: the negative log-likelihood of the centre's error under a Laplace distribution of the forecast
      scale. Its tails are heavy, like those of the errors, e.g. after a missed collision. It gives the centre no
      gradient.

    Each term is a mean over known frames. All but ``border`` count objects in frames in which they are visible and
    whole. Completed observations count as whole, with errors weighted down by their uncertainty.
    """
    seen = context.last_observation()
    whole_BhN = future.visible_BTN & seen.exists_BN[:, None]
    if future.doubt_BTN2 is None:
        whole_BhN = whole_BhN & ~future.truncated_BTN
    counts = whole_BhN.to(trajectory.centre_BhN2.dtype)
    total = all_sum(counts.sum()).clamp(min=1)
    unit = future.std_BTN2.mean(-1, keepdim=True).clamp(min=SMALL)
    if future.doubt_BTN2 is not None:
        unit = unit + DOUBT_WEIGHT * future.doubt_BTN2.mean(-1, keepdim=True)
    error = ((trajectory.centre_BhN2 - future.centre_BTN2) / unit).square().sum(-1)
    place = all_sum((_robust_loss(error, future) * counts).sum()) / total
    growth = (future.std_BTN2.clamp(min=1e-3) / seen.std_BN2[:, None].clamp(min=1e-3)).log()
    size = all_sum(((trajectory.log_size_BhN2 - growth).abs().sum(-1) * counts).sum()) / total
    distance = (trajectory.centre_BhN2.detach() - future.centre_BTN2).abs()
    nll = (distance / trajectory.scale_BhN2 + trajectory.scale_BhN2.log()).sum(-1)
    doubt = all_sum((nll * counts).sum()) / total
    return {"place": place, "size": size, "border": _border(trajectory, context, future, seen), "doubt": doubt}


def trajectory_total(errors: dict[str, Tensor]) -> Tensor:
    """Returns the weighted sum of the terms of ``trajectory_loss``."""
    learned = errors["place"] + SIZE_WEIGHT * errors["size"] + BORDER_WEIGHT * errors["border"]
    return learned + SCALE_WEIGHT * errors["doubt"]


def _border(trajectory: Trajectory, context: Tracks, future: Tracks, seen: LastObservation) -> Tensor:
    """Returns the error of objects at and beyond the image border.

    An object's box is that of a rectangle with its standard deviation. If the border truncates an object, the
    forecast box is truncated as well and compared with the box of the visible part. If an object has left, no part
    of its forecast box may lie in the image. Without this term, the place of an object that leaves would be
    arbitrary.
    """
    half_width = torch.as_tensor(future.aspect / 2)
    limit_2 = torch.stack([torch.full_like(half_width, 0.5), half_width]).to(future.centre_BTN2)
    size_BN2 = HALF_SIDE * seen.std_BN2[:, None] * torch.exp(trajectory.log_size_BhN2.clamp(-2, 2))
    low, high = trajectory.centre_BhN2 - size_BN2, trajectory.centre_BhN2 + size_BN2
    unit_BN = seen.std_BN2.mean(-1).clamp(min=SMALL)[:, None]
    exists = seen.exists_BN[:, None]
    cut_BhN = future.visible_BTN & future.truncated_BTN & exists
    if future.doubt_BTN2 is not None:  # completed objects are never truncated
        cut_BhN = torch.zeros_like(cut_BhN)
    half = HALF_SIDE * future.std_BTN2
    side_error = torch.cat(
        [_clamp(low, limit_2) - future.centre_BTN2 + half, _clamp(high, limit_2) - future.centre_BTN2 - half], -1
    )
    depth = torch.cat([high + limit_2, limit_2 - low], -1).amin(-1).clamp(min=0)
    exited_BhN = _has_left(context, future, seen) & exists
    error = _robust_loss((side_error / unit_BN[..., None]).square().sum(-1) / 2, future) * cut_BhN
    error = error + _robust_loss((depth / unit_BN).square(), future) * exited_BhN
    return all_sum(error.sum()) / all_sum((cut_BhN.sum() + exited_BhN.sum()).to(error.dtype)).clamp(min=1)


def _has_left(context: Tracks, future: Tracks, seen: LastObservation) -> Tensor:
    """Returns (B, h, N) whether an object is gone in a known frame, and was at the border when seen last."""
    at_border_BN, exited = context.truncated_BTN.gather(1, seen.frame_BN[:, None])[:, 0], []
    frames = future.visible_BTN, future.truncated_BTN, future.known_BT[..., None]
    for visible_BN, truncated_BN, known_B1 in zip(*(field.unbind(1) for field in frames), strict=True):
        at_border_BN = torch.where(visible_BN, truncated_BN, at_border_BN)
        exited.append(at_border_BN & ~visible_BN & known_B1)
    return torch.stack(exited, 1)


def _clamp(side: Tensor, limit_2: Tensor) -> Tensor:
    """Clamps the sides of a box to the image, but leaves a tenth of the excess, for the gradient."""
    clamped = torch.minimum(torch.maximum(side, -limit_2), limit_2)
    return clamped + 0.1 * (side - clamped)


def _robust_loss(squared: Tensor, future: Tracks) -> Tensor:
    """Returns a robust loss of squared errors: half of small ones, about the root of large ones.

    For completed objects it is logarithmic. Unpredictable errors, e.g. after a collision, are large, and would
    otherwise dominate.
    """
    return (1 + squared).sqrt() - 1 if future.doubt_BTN2 is None else torch.log1p(squared) / 2
