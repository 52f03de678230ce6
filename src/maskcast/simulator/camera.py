"""CLEVRER's camera, its 49 classes, and class masks rendered from object poses.

CLEVRER's camera is static and its objects are convex. So a class mask is rendered by filling the convex hull of
each object's projected outline, from far to near. The camera was fitted to 616 pairs of annotated positions and
pixels (median error 0.57 pixels at 320x480; the focal length is that of a 35 mm lens on a 32 mm sensor). In world
units, objects are about 0.4 wide, and the ground is the plane z = 0.

Shapes: T frames, N objects, H rows, W columns, P outline points, K corners of their hull.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, floor
from typing import Any

import cv2
import numpy as np

SHAPES = ("cube", "sphere", "cylinder")
MATERIALS = ("rubber", "metal")
COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
CLASSES = (
    "background",
    *(f"{shape} {material} {color}" for shape in SHAPES for material in MATERIALS for color in COLORS),
)
"""Class names by id: 1 + 16 shape + 8 material + colour."""

HALF_SIZE = {"cube": (0.19, 0.19), "sphere": (0.2, 0.2), "cylinder": (0.195, 0.2)}
"""Radius (half an edge) on the ground and half the height, in world units."""

NEAREST_DEPTH = 0.3


def class_id(shape: str, material: str, color: str) -> int:
    """Returns the class id of an object; raises ValueError for words that CLEVRER does not use."""
    return 1 + 16 * SHAPES.index(shape) + 8 * MATERIALS.index(material) + COLORS.index(color)


def class_parts(class_index: int) -> tuple[str, str, str]:
    """Returns shape, material and colour of a class id in 1..48."""
    kind, color = divmod(class_index - 1, 8)
    return SHAPES[kind // 2], MATERIALS[kind % 2], COLORS[color]


ATTRIBUTES: dict[str, tuple[str | None, ...]] = {
    name: (None, *(class_parts(k)[n] for k in range(1, len(CLASSES))))
    for n, name in enumerate(("shape", "material", "color"))
}
"""What classes share: of each attribute its value by class id."""


@dataclass(frozen=True)
class Motion:
    """Classes and poses of the objects in a clip.

    Attributes:
        class_ids: (N,) class of each object.
        locations: (T, N, 3) float64 centres in world units; NaN where an object does not exist.
        rotations: (T, N, 3, 3) float64 orientations (rotation is visible only for cubes).
    """

    class_ids: np.ndarray
    locations: np.ndarray
    rotations: np.ndarray

    def __getitem__(self, frames: slice | np.ndarray) -> "Motion":
        return Motion(self.class_ids, self.locations[frames], self.rotations[frames])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera: pixel = focal * (rotation @ world + translation)[:2] / depth + centre.

    Pixel centres have integer coordinates. The defaults are CLEVRER's camera at its original size.
    """

    height: int = 320
    width: int = 480
    focal: tuple[float, float] = (525.0, 525.0)
    center: tuple[float, float] = (240.0, 160.0)
    rotation: tuple[tuple[float, float, float], ...] = (
        (-0.002246638930498782, 0.9999967746623702, -0.0011846005116294125),
        (0.49794179367498187, 9.139777275453617e-05, -0.867210448367747),
        (-0.8672075430514067, -0.0025381708577870577, -0.49794039298237197),
    )
    translation: tuple[float, float, float] = (-0.0013586675871006763, 0.006466745295013371, 4.966652122274442)

    def to_meta(self) -> dict[str, Any]:
        """The camera as JSON, for the meta of a clip store."""
        return asdict(self)

    @classmethod
    def from_meta(cls, meta: dict[str, Any]) -> "Camera":
        """The camera from the output of `to_meta`, also after a round trip through JSON."""
        return cls(**{name: _tuples(value) for name, value in meta.items()})

    @property
    def eye(self) -> np.ndarray:
        """Position of the camera in the world, (3,)."""
        return -np.array(self.rotation).T @ np.array(self.translation)

    def scaled(self, height: int, width: int) -> "Camera":
        """The same camera for another image size."""
        rows, columns = height / self.height, width / self.width
        return replace(
            self,
            height=height,
            width=width,
            focal=(self.focal[0] * columns, self.focal[1] * rows),
            center=((self.center[0] + 0.5) * columns - 0.5, (self.center[1] + 0.5) * rows - 0.5),
        )

    def project(self, points: np.ndarray) -> np.ndarray:
        """Projects world points (..., 3) to (..., 3): column, row, depth; only a positive depth is in front."""
        camera_points = points @ np.array(self.rotation).T + np.array(self.translation)
        depth = camera_points[..., 2:]
        nonzero_depth = np.where(np.abs(depth) < 1e-6, 1e-6, depth)
        return np.concatenate(
            [camera_points[..., :2] / nonzero_depth * np.array(self.focal) + np.array(self.center), depth], axis=-1
        )

    def rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """World directions (..., 3) through pixels, with depth 1 (`eye + depth * ray` is the visible point)."""
        x = (np.asarray(columns, float) - self.center[0]) / self.focal[0]
        y = (np.asarray(rows, float) - self.center[1]) / self.focal[1]
        return np.stack([x, y, np.ones_like(x)], axis=-1) @ np.array(self.rotation)

    def to_plane(self, columns: np.ndarray, rows: np.ndarray, z: float = 0.0) -> np.ndarray:
        """World x, y (..., 2) of the points at height `z` that pixels show; NaN above the horizon."""
        ray, eye = self.rays(columns, rows), self.eye
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = (z - eye[2]) / ray[..., 2:]
            return np.where(depth > 0, eye[:2] + depth * ray[..., :2], np.nan)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


CLEVRER_CAMERA = Camera()

_ANGLES = np.linspace(0, 2 * np.pi, 48, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=-1)
_CYLINDER = np.concatenate([np.insert(_CIRCLE, 2, z, axis=1) for z in (-1.0, 1.0)])
_CUBE = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


def outlines(camera: Camera, shape: str, locations: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """World points; the convex hull of their projections is the object's silhouette.

    Args:
        camera: camera that sees the object.
        shape: one of `SHAPES`.
        locations: (T, 3) centres.
        rotations: (T, 3, 3) orientations, used for cubes.

    Returns:
        (T, P, 3) float64.
    """
    radius, half_height = HALF_SIZE[shape]
    if shape == "cube":
        return locations[:, None] + radius * _CUBE @ rotations.transpose(0, 2, 1)
    if shape == "cylinder":
        return locations[:, None] + _CYLINDER * (radius, radius, half_height)
    # The visible rim of a sphere is a circle, with a centre slightly closer to the eye than the sphere's.
    offset = locations - camera.eye
    distance = np.linalg.norm(offset, axis=-1, keepdims=True)
    axis = offset / distance
    side = np.cross(axis, (0.0, 0.0, 1.0))
    side /= np.linalg.norm(side, axis=-1, keepdims=True)
    ring = _CIRCLE[:, :1] * side[:, None] + _CIRCLE[:, 1:] * np.cross(side, axis)[:, None]
    rim = radius * np.sqrt(1 - (radius / distance) ** 2)
    return (locations - axis * radius**2 / distance)[:, None] + rim[:, None] * ring


def silhouettes(camera: Camera, motion: Motion) -> list[tuple[int, int, float, np.ndarray]]:
    """Projects all objects that the camera sees.

    Returns:
        (frame, object, distance from the eye, outline (P, 2) in pixels), by frame and from far to near.
    """
    visible: list[tuple[int, int, float, np.ndarray]] = []
    for index, class_index in enumerate(motion.class_ids):
        positions = motion.locations[:, index]
        depth = camera.project(positions)[:, 2]
        frames = np.flatnonzero(depth >= NEAREST_DEPTH)  # false for NaN
        shape = class_parts(int(class_index))[0]
        points = outlines(camera, shape, positions[frames], motion.rotations[frames, index])
        pixels = camera.project(points)[..., :2]
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        inside = (high >= -0.5).all(axis=1) & (low <= (camera.width - 0.5, camera.height - 0.5)).all(axis=1)
        distance = np.linalg.norm(positions[frames] - camera.eye, axis=-1)
        visible += [(int(frames[i]), index, float(distance[i]), pixels[i]) for i in np.flatnonzero(inside)]
    return sorted(visible, key=lambda item: (item[0], -item[2]))


def paint_masks(
    motion: Motion, height: int = 320, width: int = 480, camera: Camera = CLEVRER_CAMERA
) -> np.ndarray:
    """Renders class masks (T, height, width) uint8 as seen by CLEVRER's camera.

    A pixel belongs to the nearest object whose silhouette its centre is in.
    """
    camera = camera.scaled(height, width)
    masks = np.zeros((len(motion.locations), height, width), np.uint8)
    for frame, index, _, pixels in silhouettes(camera, motion):
        _fill(masks[frame], pixels, int(motion.class_ids[index]))
    return masks


def _fill(mask_HW: np.ndarray, outline_P2: np.ndarray, value: int) -> None:
    """Sets the pixels whose centres are in the convex hull of an outline.

    ``cv2.fillPoly`` sets all pixels that an edge touches, which enlarges small objects.
    """
    hull_K2 = cv2.convexHull(outline_P2.astype(np.float32))[:, 0]
    x_K, y_K = np.roll(hull_K2, -int(hull_K2[:, 1].argmin()), axis=0).T  # from the top corner all around
    bottom = int(y_K.argmax())
    start, stop = max(0, ceil(y_K[0])), min(len(mask_HW), floor(y_K[bottom]) + 1)
    rows = np.arange(start, stop)
    one_R = np.interp(rows, y_K[: bottom + 1], x_K[: bottom + 1])
    other_R = np.interp(rows, np.append(y_K[bottom:], y_K[0])[::-1], np.append(x_K[bottom:], x_K[0])[::-1])
    columns = np.arange(mask_HW.shape[1])
    left_R, right_R = np.minimum(one_R, other_R), np.maximum(one_R, other_R)
    inside_RW = (left_R[:, None] <= columns) & (columns <= right_R[:, None])
    np.copyto(mask_HW[start:stop], value, where=inside_RW)


def on_ground(class_ids: Sequence[int] | np.ndarray, poses: np.ndarray) -> Motion:
    """Returns the motion of objects standing on the ground.

    Args:
        class_ids: (N,) class of each object.
        poses: (T, N, 3) x, y, yaw.
    """
    level = np.broadcast_to([HALF_SIZE[class_parts(int(k))[0]][1] for k in class_ids], poses.shape[:2])
    locations = np.stack([poses[..., 0], poses[..., 1], level], axis=-1)
    return Motion(np.asarray(class_ids, np.uint8), locations, yaw_rotations(poses[..., 2]))


def yaw_rotations(yaw: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) by angles (...) about the vertical axis, in radians."""
    zero = np.zeros_like(yaw)
    return euler_rotations(np.stack([zero, zero, yaw], axis=-1))


def euler_rotations(angles: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) for CLEVRER's `orientation` (..., 3): radians about x, then y, then z."""
    (a, b, c), (s, t, u) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [
        [c * b, c * t * s - u * a, c * t * a + u * s],
        [u * b, u * t * s + c * a, u * t * a - c * s],
        [-t, b * s, b * a],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
