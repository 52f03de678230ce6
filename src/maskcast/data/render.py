"""Shades synthetic scenes so that they look like CLEVRER's videos at the price of a few milliseconds a frame.

Each object is ray-cast in its bounding box at twice the size, far objects first, over a background that was fitted
to the videos. Colours, gradients and the lamps' places were read off real frames. Shadows fall on the ground only.

Shapes: T frames, H rows, W columns.
"""

from functools import lru_cache

import cv2
import numpy as np

from maskcast.data.camera import CLEVRER_CAMERA, HALF_SIZE, Camera, Motion, class_parts, silhouettes
from maskcast.seed import rng

COLOR_RGB = {
    "gray": (86, 85, 83),
    "red": (117, 54, 52),
    "blue": (59, 76, 122),
    "green": (50, 91, 40),
    "brown": (94, 70, 38),
    "purple": (99, 56, 117),
    "cyan": (50, 116, 115),
    "yellow": (134, 129, 62),
}
"""Median colour of the rubber objects of each colour in the videos."""

_DEGREE = 6
_POWERS = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
# The videos' empty ground: per channel the coefficients of u^i v^j in this order, u and v from -1 to 1.
# fmt: off
_GROUND = np.array([
    [134.6, 4.2, -5.8, -4.3, 8.6, 12.5, -12.1, 4.8, -11.9, -27.5, 42.3, 17.7, -30.2, -2.7, -7.4, 17.2, 4.0, -13.9,
     -6.1, 10.7, 6.9, -11.7, -0.9, 5.8, -6.1, 3.2, -3.8, 0.5],
    [134.7, 4.9, -8.6, -7.5, 14.3, 14.5, -16.5, 5.2, -13.6, -25.8, 50.0, 16.6, -36.7, -2.7, -9.0, 18.7, 4.7, -13.8,
     -7.7, 13.5, 6.4, -12.4, -1.0, 6.6, -7.3, 4.4, -5.8, 0.6],
    [134.0, 1.4, -15.0, -6.0, 31.8, 15.2, -28.0, 6.1, -12.3, -36.2, 56.2, 23.7, -42.0, -2.4, -12.7, 26.9, 6.2,
     -20.1, -8.2, 11.8, 9.8, -14.3, -2.4, 8.8, -10.4, 4.3, -4.6, 1.8],
])
# fmt: on

SUPERSAMPLING = 2
GRAIN, FLICKER = 0.9, 0.6  # standard deviation of what stays within a clip and of what changes with each frame
# Lamps: direction from the ground, strength of the shadow. World x points to the camera, y to the right.
_LAMPS = np.array([[-0.45, 0.45, 0.77], [0.55, -0.55, 0.63], [0.15, 0.1, 0.98]])
_SHADOWS = ((0, 0.16), (1, 0.10))
_SPOTS = np.array([[0.46, -0.2, 0.86], [-0.23, 0.41, 0.88], [-0.62, -0.71, 0.33]])  # lamps that metal mirrors
_SPOT_SIZE, _GLOW_SIZE = 0.2, 0.4  # radians
_BEVEL = 20  # higher is sharper


@lru_cache(maxsize=4)
def _stage(height: int, width: int) -> tuple[Camera, np.ndarray, np.ndarray]:
    """Camera, empty ground (H, W, 3) float32 and the ground's world x, y (H, W, 2) float32 at a size."""
    camera = CLEVRER_CAMERA.scaled(height, width)
    v, u = np.meshgrid(
        (np.arange(height) + 0.5) / height * 2 - 1, (np.arange(width) + 0.5) / width * 2 - 1, indexing="ij"
    )
    terms = np.stack([u**i * v**j for i, j in _POWERS], axis=-1)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return camera, (terms @ _GROUND.T).astype(np.float32), camera.to_plane(columns, rows).astype(np.float32)


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    return rng(0).standard_normal(1 << 21, dtype=np.float32)


def render_frames(motion: Motion, height: int, width: int, *, seed: int) -> np.ndarray:
    """Renders frames (T, height, width, 3) uint8 RGB.

    Args:
        motion: what moves.
        height: rows.
        width: columns.
        seed: seed of the lighting's strength and of the noise.
    """
    random = rng(seed, 2)
    camera, ground, ground_xy = _stage(height, width)
    grain = random.standard_normal(ground.shape[:2], dtype=np.float32)[..., None] * GRAIN
    light = float(random.normal(1.0, 0.02))
    frames = np.empty((len(motion.locations), *ground.shape), np.uint8)
    outlines: list[list[tuple[int, np.ndarray]]] = [[] for _ in frames]
    for frame, index, _, pixels in silhouettes(camera, motion):
        outlines[frame].append((index, pixels))
    for frame, seen in enumerate(outlines):
        canvas = ground.copy()
        for location in motion.locations[frame]:
            _cast_shadow(canvas, camera, ground_xy, location)
        for index, pixels in seen:
            parts = class_parts(int(motion.class_ids[index]))
            _draw(canvas, camera, parts, motion.locations[frame, index], motion.rotations[frame, index], pixels)
        noise = _noise()
        offset = int(random.integers(len(noise) - height * width)) if len(noise) > height * width else 0
        flicker = np.resize(noise[offset : offset + height * width], (height, width, 1)) * FLICKER
        canvas *= light
        canvas += grain
        canvas += flicker + 0.5
        frames[frame] = np.clip(canvas, 0, 255)
    return frames


def _box(pixels: np.ndarray, camera: Camera) -> tuple[int, int, int, int] | None:
    left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 2, (camera.width, camera.height))
    return (top, bottom, left, right) if left < right and top < bottom else None


def _cast_shadow(canvas: np.ndarray, camera: Camera, ground_xy: np.ndarray, location: np.ndarray) -> None:
    x, y, z = location
    corners = np.array([[x + i, y + j, 0.0] for i in (-0.8, 0.8) for j in (-0.8, 0.8)])
    pixels = camera.project(corners)
    if not (pixels[:, 2] > 0.3).all():
        return
    box = _box(pixels[:, :2], camera)
    if box is None:
        return
    top, bottom, left, right = box
    dx = ground_xy[top:bottom, left:right, 0] - np.float32(x)
    dy = ground_xy[top:bottom, left:right, 1] - np.float32(y)
    contact = (dx * dx + dy * dy) / 0.23**2
    shade = 1 - 0.3 * np.exp(-contact * contact)
    for lamp, strength in _SHADOWS:
        lx, ly, lz = _LAMPS[lamp]
        flat = float(np.hypot(lx, ly))
        reach = z * flat / lz
        along = (-(dx * lx + dy * ly) / flat - reach) / (0.24 + reach / 2)
        across = (dx * ly - dy * lx) / flat / 0.23
        spread = along * along + across * across
        shade *= 1 - strength * np.exp(-spread * spread * np.float32(0.5))
    canvas[top:bottom, left:right] *= shade[..., None]


def _draw(
    canvas: np.ndarray,
    camera: Camera,
    parts: tuple[str, str, str],
    location: np.ndarray,
    rotation: np.ndarray,
    pixels: np.ndarray,
) -> None:
    """Blends one object over the canvas."""
    box = _box(pixels, camera)
    if box is None:
        return
    top, bottom, left, right = box
    offsets = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    columns = (np.arange(left, right)[:, None] + offsets).ravel()
    rows = (np.arange(top, bottom)[:, None] + offsets).ravel()
    ray = camera.rays(*np.meshgrid(columns, rows)).reshape(-1, 3)
    turn = rotation if parts[0] == "cube" else np.eye(3)
    hit, normal = _intersect(parts[0], (camera.eye - location) @ turn, ray @ turn)
    if not hit.any():
        return
    direction = ray[hit] / np.linalg.norm(ray[hit], axis=1, keepdims=True)
    color = np.zeros((len(hit), 4), np.float32)
    color[hit, :3] = _shade(np.array(COLOR_RGB[parts[2]], float), parts[1] == "metal", normal @ turn.T, direction)
    color[hit, 3] = 1
    fine = color.reshape(len(rows), len(columns), 4)
    patch = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    region = canvas[top:bottom, left:right]
    region *= 1 - patch[..., 3:]
    region += patch[..., :3]


def _intersect(shape: str, origin: np.ndarray, ray: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Meets rays (P, 3) from `origin` with an object about 0: which hit (P,), and the unit normals of those."""
    radius, half = HALF_SIZE[shape]
    with np.errstate(divide="ignore", invalid="ignore"):
        if shape == "cube":
            near = ((-np.sign(ray) * radius - origin) / ray).max(axis=1)
            far = ((np.sign(ray) * radius - origin) / ray).min(axis=1)
            hit = near < far
            point = (origin + near[hit, None] * ray[hit]) / radius
            normal = np.sign(point) * np.abs(point) ** _BEVEL  # rounds the edges, which is where metal glints
            return hit, normal / np.linalg.norm(normal, axis=1, keepdims=True)
        flat = slice(0, 3 if shape == "sphere" else 2)
        a = (ray[:, flat] ** 2).sum(axis=1)
        b = ray[:, flat] @ origin[flat]
        root = b * b - a * ((origin[flat] ** 2).sum() - radius**2)
        depth = (-b - np.sqrt(root)) / a
        if shape == "sphere":
            hit = root > 0
            return hit, (origin + depth[hit, None] * ray[hit]) / radius
        side = (root > 0) & (np.abs(origin[2] + depth * ray[:, 2]) <= half)
        lid = (half - origin[2]) / ray[:, 2]
        on_lid = ((origin[:2] + lid[:, None] * ray[:, :2]) ** 2).sum(axis=1) <= radius**2
    hit = side | on_lid
    normal = np.zeros((len(ray), 3))
    normal[side, :2] = (origin[:2] + depth[side, None] * ray[side, :2]) / radius
    rim = np.clip((origin[2] + depth[side] * ray[side, 2]) / half, 0, 1) ** _BEVEL
    normal[side, 2] = rim
    normal[on_lid] = (0.0, 0.0, 1.0)
    return hit, normal[hit] / np.linalg.norm(normal[hit], axis=1, keepdims=True)


def _shade(color: np.ndarray, metal: bool, normal: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Colours (P, 3) of surface points with unit normals, seen along unit directions."""
    if not metal:
        lamps = np.maximum(normal @ _LAMPS.T, 0) @ (0.14, 0.16, 0.22)
        return color * (0.72 + lamps + 0.06 * normal[:, 2])[:, None]
    facing = -(normal * direction).sum(axis=1)
    mirrored = direction + 2 * facing[:, None] * normal
    up = mirrored[:, 2]  # what metal mirrors: bright ground, darker surroundings, a dark sky
    lit = 1.0 - 0.22 * _step(up, 0.05, 0.1) - 0.4 * _step(up, 0.5, 0.2) + 0.1 * (1 - np.clip(facing, 0, 1)) ** 3
    miss = 2 - 2 * mirrored @ _SPOTS.T  # squared angle to each lamp, near enough
    glow = np.exp(-miss / _GLOW_SIZE**2).sum(axis=1)
    spot = np.exp(-miss / _SPOT_SIZE**2).sum(axis=1)
    return color * (lit + 0.25 * glow)[:, None] + 170 * np.minimum(spot, 1)[:, None]


def _step(value: np.ndarray, at: float, width: float) -> np.ndarray:
    return np.clip((value - at) / width + 0.5, 0, 1)
