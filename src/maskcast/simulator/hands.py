"""Two articulated hands made of capsules, in random poses.

A hand has 16 parts: a palm, and three parts for each of five fingers. A forearm is added, which belongs to no
part. Joints bend as far as human joints, and the fingers of a hand bend similarly. Two interacting hands are moved
towards each other until they touch.

Coordinates are the camera's, in metres: x to the right, y down, z away from the camera. Without rotation, a right
hand shows its palm, with the fingers up and the thumb to the right; a left hand is its mirror image.

Shapes: N capsules.
"""

from dataclasses import dataclass
from math import cos, pi, sin
from typing import Literal

import numpy as np

from maskcast.simulator.camera import euler_rotations

FINGERS = ("thumb", "index", "middle", "ring", "little")
PARTS = ("palm", *(f"{finger} {joint}" for finger in FINGERS for joint in (1, 2, 3)))  # 1 is next to the palm
SIDES = ("left", "right")
Hands = Literal["left", "right", "apart", "interacting"]

# An adult's right hand; the origin is the middle of the wrist: start of each finger, lengths and radii of its
# parts.
KNUCKLES = np.array([[0.028, -0.090, 0], [0.006, -0.095, 0], [-0.016, -0.088, 0], [-0.036, -0.076, 0]])
LENGTHS = ((0.042, 0.026, 0.021), (0.046, 0.029, 0.022), (0.042, 0.027, 0.022), (0.033, 0.020, 0.019))
RADII = (0.0098, 0.0086, 0.0076)
THUMB = np.array([0.024, -0.026, -0.004])
THUMB_LENGTHS, THUMB_RADII = (0.042, 0.034, 0.027), (0.0125, 0.0105, 0.009)
THUMB_OUT, THUMB_IN = np.array([0.74, -0.60, -0.30]), np.array([-0.60, -0.40, -0.69])  # straight; bending towards
SPREAD = np.array([0.16, 0.02, -0.10, -0.24])  # radians between straight fingers, positive to the thumb's side
BEND = (1.45, 1.75, 1.1)  # maximum angle of each joint of a finger
MIDDLE = np.array([0.0, -0.08, 0.0])  # centre of rotation of a hand
GAP = 0.002  # distance between interacting hands


@dataclass(frozen=True)
class Capsules:
    """Capsules of one or two hands.

    Attributes:
        ends_N23: both ends of each axis.
        radius_N: radius of each capsule.
        part_N: part number, 1 to 16; 0 for the forearm.
        hand_N: 0 left, 1 right.
        back_N3: unit vector towards the back of the hand.
    """

    ends_N23: np.ndarray
    radius_N: np.ndarray
    part_N: np.ndarray
    hand_N: np.ndarray
    back_N3: np.ndarray

    def moved(self, by_3: np.ndarray) -> "Capsules":
        """Returns the capsules, translated."""
        return Capsules(self.ends_N23 + by_3, self.radius_N, self.part_N, self.hand_N, self.back_N3)


def pose_hands(hands: Hands, random: np.random.Generator) -> Capsules:
    """Returns one or two hands in random poses around the origin.

    Args:
        hands: which hand, or two hands: ``apart`` side by side, or ``interacting``.
        random: draws the pose; its state advances.
    """
    size = float(random.uniform(0.85, 1.12))
    if hands in SIDES:
        return _pose(SIDES.index(hands), size, random)
    left, right = (_pose(hand, size, random) for hand in range(2))
    angle = float(random.uniform(0, 2 * pi))
    if hands == "apart":
        offset = float(random.uniform(0.16, 0.24)) * np.array([cos(angle), 0.5 * sin(angle), 0])
    else:
        offset = float(random.uniform(0, 0.07)) * np.array([cos(angle), sin(angle), 0])
        offset[2] = _contact_offset(left, right.moved(offset), float(random.choice((-1, 1))))
    right = right.moved(offset)
    pairs = ((getattr(left, name), getattr(right, name)) for name in vars(left))
    return Capsules(*(np.concatenate(pair) for pair in pairs))


def _pose(hand: int, size: float, random: np.random.Generator) -> Capsules:
    """Returns one hand with its centre at the origin."""
    limbs = [*_palm(), *_fingers(random), *_thumb(random), *_forearm(random)]
    ends_N23, radius_N, part_N, back_N3 = (np.array(column) for column in zip(*limbs, strict=True))
    mirror = np.array([1.0 if hand else -1.0, 1.0, 1.0])
    rotation_33 = _random_rotation(random)
    placed_N23 = (ends_N23 - MIDDLE) * mirror * size @ rotation_33.T
    return Capsules(
        placed_N23, radius_N * size, part_N, np.full(len(part_N), hand), back_N3 * mirror @ rotation_33.T
    )


Limb = tuple[np.ndarray, float, int, np.ndarray]  # both ends, radius, part, direction of the hand's back
BACK = np.array([0.0, 0.0, 1.0])


def _palm() -> list[Limb]:
    """Returns a capsule from the wrist to each knuckle, and the ball of the thumb."""
    bones = [(np.stack([knuckle * (0.5, 0.06, 1), knuckle]), 0.0125, 1, BACK) for knuckle in KNUCKLES]
    return [*bones, (np.stack([THUMB * (0.6, 0.7, 1), THUMB * (1.0, 1.9, 1)]), 0.0145, 1, BACK)]


def _fingers(random: np.random.Generator) -> list[Limb]:
    limbs: list[Limb] = []
    curl, spread = float(random.beta(0.7, 0.9)), float(random.uniform(0.2, 1.3))
    for finger, (knuckle, lengths) in enumerate(zip(KNUCKLES, LENGTHS, strict=True)):
        finger_curl = float(np.clip(curl + random.normal(0, 0.18), 0, 1))
        sideways = spread * SPREAD[finger] * (1 - 0.7 * finger_curl) + float(random.normal(0, 0.03))
        start, angle = knuckle, -0.15
        for joint in range(3):
            angle += finger_curl * BEND[joint] * float(random.uniform(0.8, 1.0))
            out = np.array([sin(sideways), -cos(sideways), 0])
            direction, back = cos(angle) * out - sin(angle) * BACK, sin(angle) * out + cos(angle) * BACK
            end = start + lengths[joint] * direction
            limbs.append((np.stack([start, end]), RADII[joint], 5 + 3 * finger + joint, back))
            start = end
    return limbs


def _thumb(random: np.random.Generator) -> list[Limb]:
    limbs: list[Limb] = []
    out = THUMB_OUT / np.linalg.norm(THUMB_OUT)
    towards = THUMB_IN - (THUMB_IN @ out) * out
    towards /= np.linalg.norm(towards)
    start, angle = THUMB, 0.0
    for joint, (low, high) in enumerate(((-0.2, 0.6), (0.0, 0.8), (-0.2, 1.0))):
        angle += float(random.uniform(low, high))
        direction, back = cos(angle) * out + sin(angle) * towards, sin(angle) * out - cos(angle) * towards
        end = start + THUMB_LENGTHS[joint] * direction
        limbs.append((np.stack([start, end]), THUMB_RADII[joint], 2 + joint, back))
        start = end
    return limbs


def _forearm(random: np.random.Generator) -> list[Limb]:
    up, sideways = random.uniform(-0.6, 0.6), random.uniform(-0.3, 0.3)
    direction = np.array([sin(sideways), cos(sideways) * cos(up), sin(up)])
    starts = [np.array([x, 0.012, 0.0]) for x in (-0.012, 0.012)]
    return [(np.stack([start, start + 0.3 * direction]), 0.021, 0, BACK) for start in starts]


def _random_rotation(random: np.random.Generator) -> np.ndarray:
    """Returns a random rotation (3, 3): for a third of hands any, else fingers up, palm or back visible."""
    if random.random() < 1 / 3:
        rotation_33, triangle = np.linalg.qr(random.standard_normal((3, 3)))
        rotation_33 = rotation_33 * np.sign(np.diag(triangle))
        return np.asarray(rotation_33 * np.sign(np.linalg.det(rotation_33)))
    roll, pitch, yaw = random.normal(0, 0.6), random.normal(0, 0.5), random.uniform(-pi, pi)
    first, second = euler_rotations(np.array([[0.0, yaw, 0.0], [pitch, 0.0, roll]]))
    return np.asarray(second @ first)


def _contact_offset(one: Capsules, other: Capsules, side: float) -> float:
    """Returns how far the other hand moves along z, away (1) or towards the camera (-1), until they only touch."""
    fraction = np.linspace(0, 1, 4)[:, None, None]
    spheres = []
    for hand in (one, other):
        ends_N23, radius_N = hand.ends_N23[hand.part_N > 0], hand.radius_N[hand.part_N > 0]
        centres = (1 - fraction) * ends_N23[:, 0] + fraction * ends_N23[:, 1]
        spheres.append((centres.reshape(-1, 3), np.tile(radius_N, len(fraction))))
    (a, r), (b, s) = spheres
    differences = a[:, None] - b
    reach = (r[:, None] + s + GAP) ** 2 - (differences[..., :2] ** 2).sum(-1)  # of centres along z, squared
    needed = np.where(reach > 0, side * differences[..., 2] + np.sqrt(reach.clip(0)), 0)
    return side * float(needed.max())
