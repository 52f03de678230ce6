"""A physics baseline: rigid objects of known shape slide and collide, and a known camera paints them.

It is not trained, and applies if camera, classes and time between frames are CLEVRER's. Masks are projected to
places on the ground, velocities are fitted to these, `simulator.physics` continues the motion, and the camera
paints the result.

Shapes: B clips, T context frames, h horizon, H height, W width.
"""

from collections.abc import Iterator, Sequence
from math import exp, hypot, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.models.forecasting.base import Predictor
from maskcast.simulator.camera import CLASSES, HALF_SIZE, Camera, class_parts, on_ground, paint_masks
from maskcast.simulator.physics import FRAME_TIME, Body, rollout

FIT_FRAMES = 3  # most context frames in the velocity fit: the last ones in which the class is visible
MAX_RESIDUAL = 0.02  # world units: a larger residual of the fit means a collision; frames before it are not used
DECAY = {"cube": 0.0098, "cylinder": 0.0098, "sphere": 0.003}  # loss of speed per video frame, measured
RESTITUTION = 0.37
REST_SPEED = 0.06  # world units per unit of time: slower motion counts as noise of the masks
YAWS = 9  # angles tried for a cube, within a quarter turn
# share of an object's area: a class of which less is ever seen counts as noise of a masker
MIN_VISIBLE_SHARE = 0.2


class RigidBody(Predictor):
    """Forecasts the masks of rigid bodies on a plane.

    Args:
        camera: of the clips.
        stride: frames of the 25 Hz video between two frames of a clip.
    """

    def __init__(self, camera: Camera, stride: int) -> None:
        self.camera, self.stride = camera, stride

    def forecast(self, context_BTHW: Tensor, horizon: int) -> Tensor:
        """Returns the (B, horizon, H, W) uint8 masks after (B, T, H, W) uint8 ones; unknown ids count as 0."""
        clips = [self._continue(clip_THW.cpu().numpy(), horizon) for clip_THW in context_BTHW]
        return torch.from_numpy(np.stack(clips)).to(context_BTHW.device)

    def _continue(self, context_THW: np.ndarray, horizon: int) -> np.ndarray:
        height, width = context_THW.shape[1:]
        camera = self.camera.scaled(height, width)
        context_THW = np.where(context_THW < len(CLASSES), context_THW, 0)
        seen_bodies = [
            (int(k), body) for k in np.unique(context_THW)[1:] for body in self.bodies(camera, context_THW, k)
        ]
        if not seen_bodies:
            return np.zeros((horizon, height, width), np.uint8)
        ids, bodies = zip(*seen_bodies, strict=True)
        restitution = np.full((len(bodies), len(bodies)), RESTITUTION)
        poses = rollout(list(bodies), horizon * self.stride + 1, restitution).poses[self.stride :: self.stride]
        return paint_masks(on_ground(ids, poses), height, width, camera)

    def bodies(self, camera: Camera, context_THW: np.ndarray, class_index: int) -> Iterator[Body]:
        """Yields the body of a class in the last frame, or nothing if too little of it was seen."""
        mask_THW = context_THW == class_index
        whole = mask_THW.any((1, 2)) & ~_truncated(mask_THW)
        seen = np.flatnonzero(whole if whole[-FIT_FRAMES:].any() else mask_THW.any((1, 2)))[-FIT_FRAMES:]
        shape = class_parts(class_index)[0]
        rows, columns = zip(*(np.argwhere(mask_THW[t]).mean(0) for t in seen), strict=True)
        place_N2 = camera.to_plane(np.array(columns), np.array(rows), HALF_SIZE[shape][1])
        if np.isnan(place_N2).any():  # above the horizon
            return
        if mask_THW[seen].sum((1, 2)).max() < MIN_VISIBLE_SHARE * _area(camera, shape, place_N2[-1]):
            return
        last = len(context_THW) - 1
        x, y, vx, vy = _fit((last - seen) * self.stride, place_N2, DECAY[shape])
        if hypot(vx, vy) < REST_SPEED:
            vx = vy = 0.0
        body = Body(shape, x, y, vx, vy)
        if shape == "cube" and mask_THW[last].any():
            body.yaw = _yaw(camera, class_index, body, mask_THW[last])
        yield body


def rigid_body_of(store: ClipStore, chosen: Sequence[Clip]) -> RigidBody | None:
    """Returns the baseline for some clips of a store, or None if it does not apply.

    It applies if the store has a camera, its classes are CLEVRER's and all clips have the same stride.
    """
    strides = {clip.meta.get("stride") for clip in chosen}
    camera: dict[str, Any] | None = store.meta.get("camera")
    if camera is None or store.classes != CLASSES or len(strides) != 1:
        return None
    stride = strides.pop()
    return RigidBody(Camera.from_meta(camera), stride) if isinstance(stride, int) else None


def _area(camera: Camera, shape: str, place_2: np.ndarray) -> float:
    """Returns the number of pixels that a ball of an object's size covers at a place on the ground."""
    radius, half_height = HALF_SIZE[shape]
    depth = camera.project(np.array([*place_2, half_height]))[2]
    return float(pi * np.prod(np.array(camera.focal) * radius / depth))


def _truncated(mask_THW: np.ndarray) -> np.ndarray:
    """Returns whether each mask touches the border (T,), so that its centroid is that of a part."""
    return np.logical_or(mask_THW[:, [0, -1]].any((1, 2)), mask_THW[:, :, [0, -1]].any((1, 2)))


def _fit(ago_N: np.ndarray, place_N2: np.ndarray, decay: float) -> tuple[float, float, float, float]:
    """Fits place and velocity (per unit of time) now to places ``ago`` video frames ago, by least squares.

    With a speed that decays by ``decay`` per frame, the distance covered since then is (exp(decay ago) - 1) /
    decay times the speed now. While any residual is larger than ``MAX_RESIDUAL``, the earliest place is dropped:
    a collision came after it.
    """
    back_N = FRAME_TIME * np.array([(exp(decay * ago) - 1) / decay for ago in ago_N])
    if len(ago_N) == 1:
        return float(place_N2[0, 0]), float(place_N2[0, 1]), 0.0, 0.0
    line_N2 = np.stack([np.ones_like(back_N), -back_N], 1)
    state_22, *_ = np.linalg.lstsq(line_N2, place_N2, rcond=None)
    if len(ago_N) > 2 and np.linalg.norm(line_N2 @ state_22 - place_N2, axis=1).max() > MAX_RESIDUAL:
        return _fit(ago_N[1:], place_N2[1:], decay)
    (x, y), (vx, vy) = state_22.tolist()
    return x, y, vx, vy


def _yaw(camera: Camera, class_index: int, body: Body, mask_HW: np.ndarray) -> float:
    """Returns the angle, within a quarter turn, at which a cube fits its mask best."""
    poses = np.array([[[body.x, body.y, yaw]] for yaw in np.linspace(0, pi / 2, YAWS, endpoint=False)])
    height, width = mask_HW.shape
    painted = paint_masks(on_ground([class_index], poses), height, width, camera) == class_index
    overlap = (painted & mask_HW).sum((1, 2)) / np.maximum((painted | mask_HW).sum((1, 2)), 1)
    return float(poses[overlap.argmax(), 0, 2])
