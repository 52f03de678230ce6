"""Renders synthetic scenes in the appearance of CLEVRER's videos, in a few milliseconds per frame.

Objects are ray-cast in their bounding boxes at twice the size, from far to near, over a background that was fitted
to the videos. A `Appearance` defines the appearance. Shadows fall only on the ground.

Shapes: T frames, H rows, W columns.
"""

from functools import lru_cache

import cv2
import numpy as np

from maskcast.seed import rng
from maskcast.simulator.appearance import Appearance, draw_appearance
from maskcast.simulator.camera import CLEVRER_CAMERA, Camera, Motion, class_parts, silhouettes
from maskcast.simulator.shading import intersect, reflected_objects, shade_metal, shade_rubber

_DEGREE = 6
_POWERS = [(i, j) for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
# Fitted colours of the empty ground: for each channel, coefficients of u^i v^j in this order; u and v are in
# -1..1.
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


@lru_cache(maxsize=4)
def _empty_ground(height: int, width: int, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """The empty ground (H, W, 3) float32 and its world x, y (H, W, 2) float32, at the camera's size."""
    v, u = _unit_grid(height, width)
    terms = np.stack([u**i * v**j for i, j in _POWERS], axis=-1)
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return (terms @ _GROUND.T).astype(np.float32), camera.to_plane(columns, rows).astype(np.float32)


def _unit_grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every pixel (H, W), from -1 to 1."""
    v, u = ((np.arange(size) + 0.5) / size * 2 - 1 for size in (height, width))
    return np.broadcast_to(v[:, None], (height, width)), np.broadcast_to(u, (height, width))


@lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    return rng(0).standard_normal(1 << 21, dtype=np.float32)


def render_frames(
    motion: Motion, height: int, width: int, *, seed: int, randomize: float = 0.0, camera: Camera = CLEVRER_CAMERA
) -> np.ndarray:
    """Renders frames (T, height, width, 3) uint8 RGB.

    Args:
        motion: classes and poses of the objects.
        height: rows.
        width: columns.
        seed: of appearance and noise.
        randomize: how far the appearance may differ from CLEVRER's (see `draw_appearance`).
        camera: camera of any size; it is scaled.
    """
    random = rng(seed, 2)
    appearance = draw_appearance(seed, motion.class_ids, randomize)
    camera = camera.scaled(height, width)
    ground, ground_xy = _empty_ground(height, width, camera)
    grain = random.standard_normal(ground.shape[:2], dtype=np.float32)[..., None] * np.float32(appearance.grain)
    light = float(random.normal(1.0, 0.02))
    frames = np.empty((len(motion.locations), *ground.shape), np.uint8)
    outlines: list[list[tuple[int, np.ndarray]]] = [[] for _ in frames]
    for frame, index, _, pixels in silhouettes(camera, motion):
        outlines[frame].append((index, pixels))
    for frame, seen in enumerate(outlines):
        canvas = ground * appearance.ground.astype(np.float32)
        for location in motion.locations[frame]:
            _cast_shadow(canvas, camera, ground_xy, location, appearance)
        for index, pixels in seen:
            _draw(canvas, camera, motion, frame, index, pixels, appearance)
        noise = _noise()
        offset = int(random.integers(len(noise) - height * width)) if len(noise) > height * width else 0
        flicker = np.resize(noise[offset : offset + height * width], (height, width, 1)) * np.float32(
            appearance.flicker
        )
        frames[frame] = _expose(canvas, light, grain, flicker, appearance)
    return frames


def _expose(
    canvas: np.ndarray, light: float, grain: np.ndarray, flicker: np.ndarray, appearance: Appearance
) -> np.ndarray:
    """Applies lens effects, exposure and noise to a frame (H, W, 3); returns uint8."""
    height, width = canvas.shape[:2]
    if appearance.blur:
        canvas = cv2.GaussianBlur(canvas, (0, 0), max(appearance.blur * height / 160, 0.05))
    if appearance.vignette:
        v, u = _unit_grid(height, width)
        canvas *= (1 - appearance.vignette * (u * u + v * v) / 2).astype(np.float32)[..., None]
    canvas *= appearance.exposure.astype(np.float32)
    canvas *= light
    canvas += grain
    canvas += flicker + 0.5
    frame = np.clip(canvas, 0, 255).astype(np.uint8)
    if appearance.quality is None:
        return frame
    packed = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, appearance.quality])[1]
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))[..., ::-1]


def _box(pixels: np.ndarray, camera: Camera) -> tuple[int, int, int, int] | None:
    left, top = np.maximum(np.floor(pixels.min(axis=0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 2, (camera.width, camera.height))
    return (top, bottom, left, right) if left < right and top < bottom else None


def _cast_shadow(
    canvas: np.ndarray, camera: Camera, ground_xy: np.ndarray, location: np.ndarray, appearance: Appearance
) -> None:
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
    shade = 1 - appearance.contact * np.exp(-contact * contact)
    for (lx, ly, lz), strength in zip(appearance.lamps, appearance.shadows.tolist(), strict=True):
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
    motion: Motion,
    frame: int,
    index: int,
    pixels: np.ndarray,
    appearance: Appearance,
) -> None:
    """Draws object `index` over the canvas, alpha-blended."""
    shape, material, _ = class_parts(int(motion.class_ids[index]))
    location, rotation = motion.locations[frame, index], motion.rotations[frame, index]
    box = _box(pixels, camera)
    if box is None:
        return
    top, bottom, left, right = box
    offsets = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    columns = (np.arange(left, right)[:, None] + offsets).ravel()
    rows = (np.arange(top, bottom)[:, None] + offsets).ravel()
    ray = camera.rays(*np.meshgrid(columns, rows)).reshape(-1, 3)
    turn = rotation if shape == "cube" else np.eye(3)
    hit, normal = intersect(shape, (camera.eye - location) @ turn, ray @ turn, appearance.bevel)
    if not hit.any():
        return
    direction = ray[hit] / np.linalg.norm(ray[hit], axis=1, keepdims=True)
    color = np.zeros((len(hit), 4), np.float32)
    normal = normal @ turn.T
    if material == "rubber":
        color[hit, :3] = shade_rubber(appearance.colors[index], normal, appearance)
    else:
        color[hit, :3] = shade_metal(
            appearance.colors[index],
            normal,
            direction,
            reflected_objects(motion, frame, index, appearance),
            appearance,
        )
    color[hit, 3] = 1
    fine = color.reshape(len(rows), len(columns), 4)
    patch = cv2.resize(fine, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    region = canvas[top:bottom, left:right]
    region *= 1 - patch[..., 3:]
    region += patch[..., :3]
