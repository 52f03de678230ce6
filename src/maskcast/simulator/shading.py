"""Intersections of rays with objects, and the shading of rubber and metal.

Shapes: P points or rays, N objects.
"""

import numpy as np

from maskcast.simulator.camera import HALF_SIZE, Motion
from maskcast.simulator.look import Look

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


def shade_rubber(color: np.ndarray, normal: np.ndarray, look: Look) -> np.ndarray:
    """Colours (P, 3) of surface points with unit normals."""
    lamps = np.maximum(normal @ look.lamps.T, 0) @ look.lamp_strengths
    return color * (look.ambient + lamps + look.overhead * normal[:, 2] + normal @ look.room)[:, None]


def shade_metal(
    color: np.ndarray,
    normal: np.ndarray,
    direction: np.ndarray,
    others: list[tuple[np.ndarray, float, np.ndarray]],
    look: Look,
) -> np.ndarray:
    """Colours (P, 3) of surface points with unit normals, seen along unit directions.

    Metal reflects bright ground, darker surroundings, a dark sky, lamps, and `others`.
    """
    facing = -(normal * direction).sum(axis=1)
    mirrored = direction + 2 * facing[:, None] * normal
    up = mirrored[:, 2]
    lit = np.ones(len(up))
    for drop, at, width in (look.horizon, look.sky):
        lit = lit - drop * _step(up, at, width)
    lit = lit + look.rim * (1 - np.clip(facing, 0, 1)) ** 3 + mirrored @ look.room
    miss = 2 - 2 * mirrored @ look.spots.T  # squared angle to each lamp, approximately
    glow = np.exp(-miss / look.glow_size**2).sum(axis=1)
    spot = np.exp(-miss / look.spot_size**2).sum(axis=1)
    seen = color * (lit + look.glow * glow)[:, None]
    for towards, size, tint in others:
        inside = look.mirror * _step(mirrored @ towards, 1 - size * size / 2, size * size / 4)[:, None]
        seen = seen * (1 - inside) + inside * color * tint
    return seen + look.spot * np.minimum(spot, 1)[:, None]


def find_others(motion: Motion, frame: int, index: int, look: Look) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """Objects that object `index` reflects: direction (3,), radius in radians, colour relative to the ground's."""
    if not look.mirror:
        return []
    away = motion.locations[frame] - motion.locations[frame, index]
    distance = np.linalg.norm(away, axis=1)
    return [
        (away[k] / distance[k], OBJECT_RADIUS / distance[k], look.colors[k] / GROUND_LEVEL)
        for k in np.argsort(-distance)  # far to near; comparisons are false for NaN, i.e. absent objects
        if 0 < distance[k] < MIRROR_REACH
    ]


def _step(value: np.ndarray, at: float, width: float) -> np.ndarray:
    return np.clip((value - at) / width + 0.5, 0, 1)
