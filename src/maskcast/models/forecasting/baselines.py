"""Baselines without training, which every trained forecaster must beat.

Shapes: B clips, T context frames, h horizon, K classes, H height, W width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.models.forecasting.base import Predictor, known
from maskcast.models.forecasting.rigid_body import rigid_body_of

FIT_FRAMES = 4  # context frames in the velocity fit: the last ones in which the class is visible


class Persistence(Predictor):
    """Copies the last seen mask."""

    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns (B, horizon, H, W) uint8: the last of the (B, T, H, W) uint8 masks, again and again."""
        return known(context_BTHW[:, -1:]).expand(-1, horizon, -1, -1).clone()


class ConstantVelocity(Predictor):
    """Moves every class of the last mask on a straight line.

    The velocity of a class is the least-squares slope of its centroid over the last ``FIT_FRAMES`` context
    frames in which it is visible. Its last mask, shifted by the rounded displacement, is painted over
    background (class 0); where two overlap, the higher class id stays.
    """

    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks after (B, T, H, W) uint8 ones; 255 counts as class 0."""
        context_BTHW = known(context_BTHW)
        out_BhHW = torch.zeros_like(context_BTHW[:, :1]).repeat(1, horizon, 1, 1)
        for clip_THW, out_hHW in zip(context_BTHW, out_BhHW, strict=True):
            _move_classes(clip_THW, out_hHW)
        return out_BhHW


def baselines_of(store: ClipStore, chosen: Sequence[Clip]) -> dict[str, Predictor]:
    """Returns the baselines that apply to these clips, by their names in score tables."""
    rigid_body = rigid_body_of(store, chosen)
    return {
        "persistence": Persistence(),
        "constant_velocity": ConstantVelocity(),
        **({} if rigid_body is None else {"rigid_body": rigid_body}),
    }


def centroids(clip_THW: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Returns the pixel count (T, K) and the centroid (T, K, 2; y then x; nan where absent) of every class."""
    frames, height, width = clip_THW.shape
    offsets_T11 = torch.arange(frames, device=clip_THW.device)[:, None, None] * num_classes
    ids = (clip_THW.long() + offsets_T11).flatten()
    size = frames * num_classes
    area_TK = torch.bincount(ids, minlength=size).view(frames, num_classes).double()
    y = torch.arange(height, device=ids.device, dtype=torch.double)[:, None].expand(frames, height, width)
    x = torch.arange(width, device=ids.device, dtype=torch.double).expand(frames, height, width)
    sums = [torch.bincount(ids, weights=axis.flatten(), minlength=size) for axis in (y, x)]
    return area_TK, torch.stack(sums, dim=-1).view(frames, num_classes, 2) / area_TK[..., None]


def _move_classes(clip_THW: Tensor, out_hHW: Tensor) -> None:
    """Paints the moved classes of one clip into ``out_hHW``, which is all background."""
    area_TK, centroid_TK2 = centroids(clip_THW, int(clip_THW.max()) + 1)
    last_HW = clip_THW[-1]
    for class_id in area_TK[-1, 1:].nonzero().flatten().add(1).tolist():
        pixels_N2 = (last_HW == class_id).nonzero()
        visible_frames = area_TK[:, class_id].nonzero().flatten()[-FIT_FRAMES:]
        velocity = _slope(visible_frames.double(), centroid_TK2[visible_frames, class_id])
        for step, out_HW in enumerate(out_hHW, start=1):
            y, x = (pixels_N2 + torch.round(velocity * step).long()).unbind(1)
            inside = (y >= 0) & (y < out_HW.shape[0]) & (x >= 0) & (x < out_HW.shape[1])
            out_HW[y[inside], x[inside]] = class_id


def _slope(time_N: Tensor, position_N2: Tensor) -> Tensor:
    """Returns the least-squares velocity in pixels per frame, zero from a single observation."""
    time_N = time_N - time_N.mean()
    return (time_N[:, None] * position_N2).sum(0) / (time_N**2).sum().clamp(min=0.5)  # two frames give 0.5
