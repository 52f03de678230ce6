"""The appearance of a rendered video: colours, lamps, reflections in metal, lens and camera noise.

The defaults of `Appearance` were estimated from CLEVRER's videos. `draw_appearance` varies them, so that a network
trained on rendered frames learns what is invariant: domain randomisation (Tobin et al. 2017, arXiv 1703.06907).

Shapes: N objects, L lamps, S highlights.
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
class Appearance:
    """The appearance of a video; world x points to the camera, y to the right, z up."""

    colors: np.ndarray
    """(N, 3) RGB of each object."""
    lamps: np.ndarray = field(
        default_factory=lambda: np.array([(-0.45, 0.45, 0.77), (0.55, -0.55, 0.63), (0.15, 0.1, 0.98)])
    )
    """(L, 3) directions from the ground to the lamps."""
    lamp_strengths: np.ndarray = field(default_factory=lambda: np.array([0.14, 0.16, 0.22]))
    """(L,) brightness that each lamp adds to rubber facing it."""
    shadows: np.ndarray = field(default_factory=lambda: np.array([0.16, 0.10, 0.0]))
    """(L,) how much darker the ground is in the shadow of each lamp."""
    contact: float = 0.3
    """How much darker the ground is below an object."""
    ambient: float = 0.72
    """Ambient light."""
    overhead: float = 0.06
    """Brightness that light from above adds to rubber."""
    ground: np.ndarray = field(default_factory=lambda: np.array([1.0, 1.0, 1.0]))
    """(3,) colour of the ground, as a factor on the measured colour."""
    spots: np.ndarray = field(
        default_factory=lambda: np.array([(0.46, -0.2, 0.86), (-0.23, 0.41, 0.88), (-0.62, -0.71, 0.33)])
    )
    """(S, 3) directions of the lamps that metal reflects."""
    spot: float = 170.0
    """Brightness of a reflected lamp, on the 0-255 scale."""
    spot_size: float = 0.2
    """Radius of a reflected lamp, in radians."""
    glow: float = 0.25
    """Brightness of the glow around a reflected lamp, relative to the metal's colour."""
    glow_size: float = 0.4
    """Radius of the glow, in radians."""
    horizon: tuple[float, float, float] = (0.22, 0.05, 0.1)
    """Reflected surroundings above the ground: how much darker, from which height (-1 to 1), width of the step."""
    sky: tuple[float, float, float] = (0.4, 0.5, 0.2)
    """The same for the reflected sky, which is darker still."""
    rim: float = 0.1
    """Additional reflection of metal at grazing angles."""
    mirror: float = 0.0
    """How strongly metal reflects other objects."""
    room: np.ndarray = field(default_factory=lambda: np.array([0.0, 0.0, 0.0]))
    """(3,) gradient, along each axis, of the brightness that metal reflects and rubber receives."""
    bevel: float = 20.0
    """Sharpness of edges."""
    exposure: np.ndarray = field(default_factory=lambda: np.array([1.0, 1.0, 1.0]))
    """(3,) factor on each channel."""
    vignette: float = 0.0
    """How much darker the corners are."""
    blur: float = 0.0
    """Standard deviation of the lens blur, in pixels at 160 rows."""
    grain: float = 0.9
    """Standard deviation of noise that is constant within a clip."""
    flicker: float = 0.6
    """Standard deviation of noise that differs between frames."""
    quality: int | None = None
    """JPEG quality with which frames were compressed, or None."""


def draw_appearance(seed: int, class_ids: np.ndarray, amount: float) -> Appearance:
    """Draws the appearance of a video, a pure function of the arguments.

    Args:
        seed: identifies the video.
        class_ids: (N,) class of each object.
        amount: 0 gives the defaults, 1 the full range; larger values exceed it.
    """
    random = rng(seed, 3)
    plain = Appearance(
        np.array([COLOR_RGB[class_parts(int(index))[2]] for index in class_ids], float).reshape(-1, 3)
    )
    if not amount:
        return plain

    def shifted(value: np.ndarray | float, by: float) -> np.ndarray:
        return value + amount * by * random.uniform(-1, 1, np.shape(value))

    def scaled(value: np.ndarray | float, by: float) -> np.ndarray:
        """Multiplies by a factor in 1 / `by`..`by`, uniform on a log scale."""
        return value * by ** (amount * random.uniform(-1, 1, np.shape(value)))

    def positive(value: np.ndarray) -> np.ndarray:
        return np.maximum(value, 0.05)

    grey = plain.colors.mean(axis=1, keepdims=True)
    colors = grey + (plain.colors - grey) * scaled(np.ones_like(grey), 1.3)
    colors = scaled(colors, 1.06) * scaled(np.ones_like(grey), 1.2)
    lamps, spots = shifted(plain.lamps, 0.3), shifted(plain.spots, 0.35)
    lamps[:, 2] = np.maximum(lamps[:, 2], 0.4)  # a lamp at ground level casts an endless shadow
    horizon = np.array([1.0, 0.0, 1.0]) * scaled(np.array(plain.horizon), 2.0)
    sky = np.array([1.0, 0.0, 1.0]) * scaled(np.array(plain.sky), 1.6)
    horizon[1], sky[1] = shifted(plain.horizon[1], 0.2), shifted(plain.sky[1], 0.2)
    return Appearance(
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

    With `amount` 0 it is CLEVRER's; with 1 it is rotated by up to a degree about each axis, and its focal length
    differs by up to 3 %.
    """
    if not amount:
        return CLEVRER_CAMERA
    random = rng(seed, 4)
    turn = euler_rotations(np.radians(random.uniform(-1, 1, 3) * amount))
    zoom = 1.03 ** float(random.uniform(-1, 1) * amount)
    rotation, translation = np.array(CLEVRER_CAMERA.rotation), np.array(CLEVRER_CAMERA.translation)
    rows = (turn @ rotation).tolist()  # about the eye, whose position stays
    return replace(
        CLEVRER_CAMERA,
        focal=(CLEVRER_CAMERA.focal[0] * zoom, CLEVRER_CAMERA.focal[1] * zoom),
        rotation=tuple(map(tuple, rows)),
        translation=tuple((turn @ translation).tolist()),
    )
