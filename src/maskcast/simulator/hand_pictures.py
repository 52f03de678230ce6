"""Pictures of simulated hands with exact masks: of each whole hand, hidden parts included, and of what is visible.

As in crops of InterHand2.6M, the picture is a square around the hands, 1.25 times their size. A pixel shows the
first surface on the ray through its centre. Light, skin, background and camera noise are random.

Shapes: H rows, W columns, N capsules.
"""

from dataclasses import dataclass
from math import ceil, floor

import cv2
import numpy as np

from maskcast.seed import derive, rng
from maskcast.simulator.figures import SKINS, simulate_background
from maskcast.simulator.hands import PARTS, Capsules, Hands, pose_hands

BOX = 1.25  # side of the square / size of the hands in the picture
NAIL = (0.45, 0.5)  # a nail begins this far along a fingertip, where the normal points this much to the back
FINGERTIPS = [number for number, name in enumerate(PARTS, 1) if name.endswith("3")]


@dataclass(frozen=True)
class HandPicture:
    """A picture with its masks.

    Attributes:
        frame_HWC: uint8 RGB.
        left_HW: uint8 part of the left hand, 0 for none; parts hidden by the other hand are included.
        right_HW: the same for the right hand.
        visible_HW: uint8 visible hand: 1 left, 2 right, 0 none.
    """

    frame_HWC: np.ndarray
    left_HW: np.ndarray
    right_HW: np.ndarray
    visible_HW: np.ndarray


@dataclass(frozen=True)
class RayHits:
    """Results of ray casting: masks as in `HandPicture`, distances (inf for no hit), and the first capsule hit."""

    left_HW: np.ndarray
    right_HW: np.ndarray
    visible_HW: np.ndarray
    distance_HW: np.ndarray
    first_HW: np.ndarray


def simulate_hands(seed: int, *, hands: Hands, height: int, width: int) -> HandPicture:
    """Simulates a picture of one or two hands, a pure function of the arguments."""
    random = rng(seed)
    capsules = pose_hands(hands, random)
    capsules = capsules.moved(np.array([0, 0, random.uniform(0.45, 1.2)]))
    rays_HWC = _rays(capsules, height, width, random)
    hits = trace_hands(capsules, rays_HWC)
    hit_HW = np.isfinite(hits.distance_HW)
    background = simulate_background(derive(seed), frames=1, height=height, width=width)[0].astype(np.float32)
    points = rays_HWC[hit_HW] * hits.distance_HW[hit_HW][:, None]
    shaded = _shaded(capsules, hits.first_HW[hit_HW], points, random)
    grain = cv2.resize(random.normal(1, 0.09, (6, 6)).astype(np.float32), (width, height))
    background[hit_HW] = shaded * grain[hit_HW][:, None]
    return HandPicture(_add_camera_noise(background, random), hits.left_HW, hits.right_HW, hits.visible_HW)


def trace_hands(capsules: Capsules, rays_HWC: np.ndarray) -> RayHits:
    """Casts rays from the origin with unit directions (H, W, 3)."""
    size = rays_HWC.shape[:2]
    patches = [_distances(capsules, n, rays_HWC) for n in range(len(capsules.part_N))]
    is_hand_N, hand_N = capsules.part_N > 0, capsules.hand_N
    hands = []
    for hand in range(2):
        distance_HW, first_HW = _nearest(patches, np.flatnonzero(is_hand_N & (hand_N == hand)), size)
        hands.append(np.where(np.isfinite(distance_HW), capsules.part_N[first_HW], 0).astype(np.uint8))
    distance_HW, first_HW = _nearest(patches, range(len(patches)), size)
    visible_HW = np.where(np.isfinite(distance_HW) & is_hand_N[first_HW], hand_N[first_HW] + 1, 0).astype(np.uint8)
    return RayHits(hands[0], hands[1], visible_HW, distance_HW, first_HW)


def _rays(capsules: Capsules, height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Returns the unit direction from the camera through each pixel's centre, (H, W, 3)."""
    ends_N23 = capsules.ends_N23[capsules.part_N > 0]
    projected = ends_N23[..., :2] / ends_N23[..., 2:]
    radius = capsules.radius_N[capsules.part_N > 0][:, None, None] / ends_N23[..., 2:]
    low, high = (projected - radius).min((0, 1)), (projected + radius).max((0, 1))
    side = float((high - low).max()) * BOX * float(random.uniform(0.92, 1.12))
    middle = (low + high) / 2 + random.uniform(-0.04, 0.04, 2) * side
    y, x = np.mgrid[0:height, 0:width] + 0.5
    scale = side / min(height, width)
    rays_HWC = np.stack(
        [(x - width / 2) * scale + middle[0], (y - height / 2) * scale + middle[1], np.ones_like(x)], -1
    )
    return np.asarray((rays_HWC / np.linalg.norm(rays_HWC, axis=-1, keepdims=True)).astype(np.float32))


Patch = tuple[tuple[slice, slice], np.ndarray]  # window of the picture, and its values


def _distances(capsules: Capsules, n: int, rays_HWC: np.ndarray) -> Patch:
    """Returns the distance along each ray to a capsule (inf for no hit), in a window around the capsule.

    Source of the formula: Inigo Quilez, "Capsule - intersection".
    """
    (a, b), radius = capsules.ends_N23[n].astype(np.float32), float(capsules.radius_N[n])
    window = _window(capsules.ends_N23[n], radius, rays_HWC)
    rays = rays_HWC[window]
    axis, length = b - a, float((b - a) @ (b - a))
    along, onto = rays @ axis, rays @ a
    start, far = -float(axis @ a), float(a @ a)
    qa, qb = length - along**2, -length * onto - start * along
    qc = length * far - start**2 - radius**2 * length
    root = qb**2 - qa * qc
    side = (-qb - np.sqrt(root.clip(0))) / qa.clip(1e-12)
    place = start + side * along
    near_b = place > length / 2
    onto_end = np.where(near_b, rays @ b, onto)
    root_end = onto_end**2 - (np.where(near_b, float(b @ b), far) - radius**2)
    cap = onto_end - np.sqrt(root_end.clip(0))
    on_side = (root >= 0) & (place > 0) & (place < length)
    distance = np.where(on_side, side, np.where(root_end > 0, cap, np.inf))
    return window, np.where(distance > 0, distance, np.inf)


def _window(ends_23: np.ndarray, radius: float, rays_HWC: np.ndarray) -> tuple[slice, slice]:
    """Returns rows and columns in which a capsule can be visible; the whole picture if it reaches the camera."""
    height, width = rays_HWC.shape[:2]
    depth_2 = ends_23[:, 2] - radius
    if depth_2.min() <= 0.05 or min(height, width) < 2:
        return slice(0, height), slice(0, width)
    spans = []
    for axis, line in ((1, rays_HWC[:, 0]), (0, rays_HWC[0])):
        steps = line[:, axis] / line[:, 2]
        edges = [
            (ends_23[:, axis] + sign * radius) / depth
            for sign in (-1, 1)
            for depth in (depth_2, depth_2 + 2 * radius)
        ]
        scale = (len(steps) - 1) / float(steps[-1] - steps[0])
        first, last = ((float(edge) - float(steps[0])) * scale for edge in (np.min(edges), np.max(edges)))
        spans.append(slice(min(max(0, floor(first)), len(steps)), max(0, ceil(last) + 1)))
    return spans[0], spans[1]


def _nearest(
    patches: list[Patch], which: "range | np.ndarray", size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance along each ray to the nearest capsule, and the index of the capsule; (H, W) each."""
    nearest_HW, first_HW = np.full(size, np.inf, np.float32), np.zeros(size, np.int64)
    for n in which:
        window, distance = patches[n]
        closer = distance < nearest_HW[window]
        nearest_HW[window][closer] = distance[closer]
        first_HW[window][closer] = n
    return nearest_HW, first_HW


def _shaded(capsules: Capsules, first: np.ndarray, points: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Returns the colours (pixels, 3) of points on capsules: skin lit by a lamp and a sky, nails, highlights."""
    low, high = sorted(random.choice(len(SKINS), 2, replace=False))
    skin = np.array(SKINS[low]) + random.random() * (np.array(SKINS[high], np.float64) - SKINS[low])
    start, axis = capsules.ends_N23[first, 0], np.diff(capsules.ends_N23, axis=1)[:, 0][first]
    share = (((points - start) * axis).sum(-1) / (axis**2).sum(-1)).clip(0, 1)
    normal = (points - start - share[:, None] * axis) / capsules.radius_N[first, None]
    to_back = (normal * capsules.back_N3[first]).sum(-1)
    colour = np.repeat(skin[None], len(first), 0) + random.normal(0, 6, 3)
    colour[to_back < 0] += (12, -2, -2)  # the palm is redder than the back
    nail = np.isin(capsules.part_N[first], FINGERTIPS) & (share > NAIL[0]) & (to_back > NAIL[1])
    colour[nail] = 0.6 * colour[nail] + 0.4 * np.array([240, 205, 200])
    lamp = random.standard_normal(3) - (0, 1.2, 1.2)  # mostly from above and from the camera's side
    lamp /= np.linalg.norm(lamp)
    glow = random.uniform(0.35, 0.7)
    light = glow + random.uniform(0.4, 0.9) * (normal @ lamp).clip(0) - 0.12 * normal[:, 1]
    view = -points / np.linalg.norm(points, axis=-1, keepdims=True)
    halfway = view + lamp
    halfway /= np.linalg.norm(halfway, axis=-1, keepdims=True)
    shine = random.uniform(0, 60) * (normal * halfway).sum(-1).clip(0) ** 20
    edge = (normal * view).sum(-1).clip(0) ** 0.3  # skin looks darker at grazing angles
    tint = random.uniform(0.9, 1.1, 3)
    return np.asarray((colour * (light * edge)[:, None] * tint + shine[:, None]).astype(np.float32))


def _add_camera_noise(picture_HWC: np.ndarray, random: np.random.Generator) -> np.ndarray:
    blurred = cv2.GaussianBlur(picture_HWC, (0, 0), float(random.uniform(0.4, 0.9)))
    noise = random.standard_normal(blurred.shape, np.float32) * float(random.uniform(1, 6))
    return np.asarray((blurred + noise).round().clip(0, 255).astype(np.uint8))
