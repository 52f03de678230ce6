"""What a rendered video looks like: colours, lamps, what metal mirrors, the lens and the film.

The defaults of `Look` were read off CLEVRER's videos. `draw_look` varies all of it around them, so that a network
trained on rendered frames learns what does not change: domain randomisation (Tobin et al. 2017, arXiv 1703.06907).

Shapes: N objects, L lamps, S spots.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from maskcast.seed import rng
from maskcast.simulator.camera import CLEVRER_CAMERA, Camera, class_parts, euler_rotations

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


@dataclass(frozen=True)
class Look:
    """How one video looks; world x points to the camera, y to the right, z up."""

    colors: np.ndarray
    """(N, 3) RGB of each object."""
    lamps: np.ndarray = field(
        default_factory=lambda: np.array([(-0.45, 0.45, 0.77), (0.55, -0.55, 0.63), (0.15, 0.1, 0.98)])
    )
    """(L, 3) directions from the ground to the lamps."""
    lamp_strengths: np.ndarray = field(default_factory=lambda: np.array([0.14, 0.16, 0.22]))
    """(L,) what each lamp adds to rubber that faces it."""
    shadows: np.ndarray = field(default_factory=lambda: np.array([0.16, 0.10, 0.0]))
    """(L,) how much darker the ground is in the shadow of each lamp."""
    contact: float = 0.3
    """How much darker the ground is below an object."""
    ambient: float = 0.72
    """Light from everywhere."""
    overhead: float = 0.06
    """What light from above adds to rubber."""
    ground: np.ndarray = field(default_factory=lambda: np.array([1.0, 1.0, 1.0]))
    """(3,) colour of the ground, as a factor on the measured one."""
    spots: np.ndarray = field(
        default_factory=lambda: np.array([(0.46, -0.2, 0.86), (-0.23, 0.41, 0.88), (-0.62, -0.71, 0.33)])
    )
    """(S, 3) directions of the lamps that metal mirrors."""
    spot: float = 170.0
    """Brightness of a mirrored lamp, in levels of 255."""
    spot_size: float = 0.2
    """Radius of a mirrored lamp, radians."""
    glow: float = 0.25
    """Brightness around a mirrored lamp, as a part of the metal's colour."""
    glow_size: float = 0.4
    """Radius of that, radians."""
    horizon: tuple[float, float, float] = (0.22, 0.05, 0.1)
    """What metal mirrors above the ground: how much darker, from what height on (-1 to 1), within what height."""
    sky: tuple[float, float, float] = (0.4, 0.5, 0.2)
    """The same of the sky, darker still."""
    rim: float = 0.1
    """What metal mirrors more where it is seen from the side."""
    mirror: float = 0.0
    """How well metal mirrors the other objects."""
    room: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 0.0]))
    """(3,) how the brightness of what metal mirrors, and of what lights rubber, grows along each direction."""
    bevel: float = 20.0
    """Sharpness of edges."""
    exposure: np.ndarray = field(default_factory=lambda: np.array([1.0, 1.0, 1.0]))
    """(3,) factor on each channel."""
    vignette: float = 0.0
    """How much darker the corners are."""
    blur: float = 0.0
    """Standard deviation of the lens's blur, in pixels of 160 rows."""
    grain: float = 0.9
    """Standard deviation of the noise that stays within a clip."""
    flicker: float = 0.6
    """Standard deviation of the noise that changes with each frame."""
    quality: int | None = None
    """JPEG quality that the frames have gone through."""


def draw_look(seed: int, class_ids: np.ndarray, amount: float) -> Look:
    """Draws the look of a video, a pure function of the arguments.

    Args:
        seed: which video.
        class_ids: (N,) class of each object.
        amount: 0 gives the defaults, 1 the full range, more goes beyond it.
    """
    random = rng(seed, 3)
    plain = Look(np.array([COLOR_RGB[class_parts(int(index))[2]] for index in class_ids], float).reshape(-1, 3))
    if not amount:
        return plain

    def shifted(value: np.ndarray | float, by: float) -> np.ndarray:
        return value + amount * by * random.uniform(-1, 1, np.shape(value))

    def scaled(value: np.ndarray | float, by: float) -> np.ndarray:
        """Multiplies by 1 / `by` to `by`, evenly on a log scale."""
        return value * by ** (amount * random.uniform(-1, 1, np.shape(value)))

    def positive(value: np.ndarray) -> np.ndarray:
        return np.maximum(value, 0.05)

    grey = plain.colors.mean(axis=1, keepdims=True)
    colors = grey + (plain.colors - grey) * scaled(np.ones_like(grey), 1.3)
    colors = scaled(colors, 1.06) * scaled(np.ones_like(grey), 1.2)
    lamps, spots = shifted(plain.lamps, 0.3), shifted(plain.spots, 0.35)
    lamps[:, 2] = np.maximum(lamps[:, 2], 0.4)  # a lamp on the ground casts an endless shadow
    horizon = np.array([1.0, 0.0, 1.0]) * scaled(np.array(plain.horizon), 2.0)
    sky = np.array([1.0, 0.0, 1.0]) * scaled(np.array(plain.sky), 1.6)
    horizon[1], sky[1] = shifted(plain.horizon[1], 0.2), shifted(plain.sky[1], 0.2)
    return Look(
        colors=np.clip(colors, 5, 230),
        lamps=lamps,
        lamp_strengths=scaled(plain.lamp_strengths, 2.0),
        shadows=np.minimum(positive(shifted(plain.shadows, 0.1)), 0.5),
        contact=float(np.minimum(scaled(plain.contact, 1.8), 0.8)),
        ambient=float(scaled(plain.ambient, 1.12)),
        overhead=float(shifted(plain.overhead, 0.1)),
        ground=scaled(plain.ground, 1.03) * scaled(1.0, 1.12),
        spots=spots / np.linalg.norm(spots, axis=1, keepdims=True),
        spot=float(scaled(plain.spot, 1.7)),
        spot_size=float(scaled(plain.spot_size, 1.8)),
        glow=float(scaled(plain.glow, 2.0)),
        glow_size=float(scaled(plain.glow_size, 1.5)),
        horizon=(float(horizon[0]), float(horizon[1]), float(horizon[2])),
        sky=(float(sky[0]), float(sky[1]), float(sky[2])),
        rim=float(scaled(plain.rim, 3.0)),
        mirror=float(min(amount, 1.0) * random.uniform(0.3, 1)),
        room=shifted(plain.room, 0.12),
        bevel=float(scaled(plain.bevel, 2.5)),
        exposure=scaled(plain.exposure, 1.03) * scaled(1.0, 1.15),
        vignette=float(shifted(0.0, 0.15)),
        blur=float(amount * random.uniform(0, 0.7)),
        grain=float(scaled(plain.grain, 4.0)),
        flicker=float(scaled(plain.flicker, 4.0)),
        quality=int(100 - min(random.uniform(2, 30) * amount, 80)),
    )


def draw_camera(seed: int, amount: float) -> Camera:
    """Draws the camera of a video, a pure function of the arguments.

    CLEVRER's where `amount` is 0; where it is 1, turned by up to a degree about each axis, with a focal length up
    to 3 % off.
    """
    if not amount:
        return CLEVRER_CAMERA
    random = rng(seed, 4)
    turn = euler_rotations(np.radians(random.uniform(-1, 1, 3) * amount))
    zoom = 1.03 ** float(random.uniform(-1, 1) * amount)
    rotation, translation = np.array(CLEVRER_CAMERA.rotation), np.array(CLEVRER_CAMERA.translation)
    rows = (turn @ rotation).tolist()  # about the eye, which stays where it is
    return replace(
        CLEVRER_CAMERA,
        focal=(CLEVRER_CAMERA.focal[0] * zoom, CLEVRER_CAMERA.focal[1] * zoom),
        rotation=tuple(map(tuple, rows)),
        translation=tuple((turn @ translation).tolist()),
    )
