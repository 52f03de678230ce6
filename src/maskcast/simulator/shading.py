"""Intersections of rays with objects, and the shading of rubber and metal.

Shapes: P points or rays, N objects.
"""

import numpy as np

from maskcast.simulator.appearance import Appearance
from maskcast.simulator.camera import HALF_SIZE, Motion

OBJECT_RADIUS, MIRROR_REACH = 0.22, 2.0  # world units: size and maximum distance of objects that metal reflects
GROUND_LEVEL = 135.0  # brightness of the ground, 0..255


def intersect(shape: str, origin: np.ndarray, ray: np.ndarray, bevel: float) -> tuple[np.ndarray, np.ndarray]:
    """Intersects rays (P, 3) from `origin` with an object at 0; returns which hit (P,), and their unit normals."""
    radius, half = HALF_SIZE[shape]
    with np.errstate(divide="ignore", invalid="ignore"):
        if shape == "cube":
            near = ((-np.sign(ray) * radius - origin) / ray).max(axis=1)
            far = ((np.sign(ray) * radius - origin) / ray).min(axis=1)
            hit = near < far
            point = (origin + near[hit, None] * ray[hit]) / radius
            normal = np.sign(point) * np.abs(point) ** bevel  # rounds the edges, which gives metal its highlights
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
    rim = np.clip((origin[2] + depth[side] * ray[side, 2]) / half, 0, 1) ** bevel
    normal[side, 2] = rim
    normal[on_lid] = (0.0, 0.0, 1.0)
    return hit, normal[hit] / np.linalg.norm(normal[hit], axis=1, keepdims=True)


def shade_rubber(color: np.ndarray, normal: np.ndarray, appearance: Appearance) -> np.ndarray:
    """Colours (P, 3) of surface points with unit normals."""
    lamps = np.maximum(normal @ appearance.lamps.T, 0) @ appearance.lamp_strengths
    return (
        color
        * (appearance.ambient + lamps + appearance.overhead * normal[:, 2] + normal @ appearance.room)[:, None]
    )


def shade_metal(
    color: np.ndarray,
    normal: np.ndarray,
    direction: np.ndarray,
    others: list[tuple[np.ndarray, float, np.ndarray]],
    appearance: Appearance,
) -> np.ndarray:
    """Colours (P, 3) of surface points with unit normals, seen along unit directions.

    Metal reflects bright ground, darker surroundings, a dark sky, lamps, and `others`.
    """
    facing = -(normal * direction).sum(axis=1)
    mirrored = direction + 2 * facing[:, None] * normal
    up = mirrored[:, 2]
    brightness = np.ones(len(up))
    for drop, at, width in (appearance.horizon, appearance.sky):
        brightness = brightness - drop * _step(up, at, width)
    brightness = brightness + appearance.rim * (1 - np.clip(facing, 0, 1)) ** 3 + mirrored @ appearance.room
    miss = 2 - 2 * mirrored @ appearance.spots.T  # squared angle to each lamp, approximately
    glow = np.exp(-miss / appearance.glow_size**2).sum(axis=1)
    spot = np.exp(-miss / appearance.spot_size**2).sum(axis=1)
    color_seen = color * (brightness + appearance.glow * glow)[:, None]
    for towards, size, tint in others:
        inside = appearance.mirror * _step(mirrored @ towards, 1 - size * size / 2, size * size / 4)[:, None]
        color_seen = color_seen * (1 - inside) + inside * color * tint
    return color_seen + appearance.spot * np.minimum(spot, 1)[:, None]


def reflected_objects(
    motion: Motion, frame: int, index: int, appearance: Appearance
) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Objects that object `index` reflects: direction (3,), radius in radians, colour relative to the ground's."""
    if not appearance.mirror:
        return []
    offset = motion.locations[frame] - motion.locations[frame, index]
    distance = np.linalg.norm(offset, axis=1)
    return [
        (offset[k] / distance[k], OBJECT_RADIUS / distance[k], appearance.colors[k] / GROUND_LEVEL)
        for k in np.argsort(-distance)  # far to near; comparisons are false for NaN, i.e. absent objects
        if 0 < distance[k] < MIRROR_REACH
    ]


def _step(value: np.ndarray, at: float, width: float) -> np.ndarray:
    return np.clip((value - at) / width + 0.5, 0, 1)
