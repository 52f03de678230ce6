"""Articulated figures in front of a green screen, with their exact opacity, and backgrounds.

A figure is a tree of limbs, drawn as thick lines with round ends. Its joints swing as in walking, waving or
jumping. A frame is the mean of several moments during the exposure, each drawn at twice the size. So edges are
soft and fast hands are blurred. The screen is lit unevenly and casts green light on the figure.

Backgrounds contain shapes in the colours of figures, so that colour alone does not identify a figure.

Shapes: T frames, H rows, W columns.
"""

from dataclasses import dataclass
from math import cos, pi, sin

import cv2
import numpy as np

from maskcast.seed import rng

SUPERSAMPLING, MOMENTS = 2, 3  # per side of a pixel; per frame
SHIFT = 4  # fractional bits of coordinates for OpenCV
SHUTTER = 0.5  # exposure time, as a fraction of the time between two frames
SPILL = 0.08  # share of the screen's colour that is added to a figure
SCREEN_LOW, SCREEN_HIGH = (25, 155, 35), (60, 195, 75)  # RGB range of the evenly lit screen
SKINS = ((236, 198, 170), (214, 160, 122), (156, 104, 72), (92, 62, 48))
CLOTHES = (
    (178, 44, 52),
    (38, 62, 128),
    (224, 190, 70),
    (46, 44, 50),
    (214, 214, 218),
    (126, 66, 130),
    (92, 76, 60),
)
HAIRS = ((28, 22, 20), (96, 62, 36), (196, 158, 96), (120, 120, 122))
MAX_PAN = 1.5  # speed of a moving background, in pixels per frame at 80 rows


@dataclass(frozen=True)
class _Figure:
    """Properties of a figure; lengths are relative to its height, angles in radians, speeds per frame.

    Attributes:
        height: relative to the picture's height.
        x: start position, relative to the width.
        velocity: relative to the width, per frame; it reverses at the sides.
        pace: radians per frame of the swing.
        phase: phase of the swing in the first frame.
        legs: maximum angle of a thigh.
        arms: maximum angle of an upper arm.
        lift: angle by which an arm is raised.
        hop: height of hops.
        colours: (skin, shirt, trousers, hair), each RGB.
        stripe: colour of the stripe on the shirt.
    """

    height: float
    x: float
    velocity: float
    pace: float
    phase: float
    legs: float
    arms: float
    lift: float
    hop: float
    colours: np.ndarray
    stripe: np.ndarray


def simulate_green_screen(seed: int, *, frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Simulates a video of one or two figures in front of a green screen, a pure function of the arguments.

    Returns:
        Frames (T, H, W, 3) uint8 RGB and the opacity of the figures (T, H, W) uint8.
    """
    random = rng(seed)
    figures = [_draw_figure(random) for _ in range(1 + int(random.random() < 0.3))]
    screen_HWC = draw_screen(random, height, width)
    tint = screen_HWC.mean((0, 1))
    shots, opacities = [], []
    for t in range(frames):
        paint_HWC, cover_HW = _render_exposure(figures, t, height, width)
        lit_HWC = paint_HWC * (1 - SPILL) + cover_HW[..., None] * SPILL * tint
        shot_HWC = lit_HWC + (1 - cover_HW[..., None]) * screen_HWC
        noise_HWC = random.standard_normal(shot_HWC.shape, np.float32) * 2
        shots.append((shot_HWC + noise_HWC).round().clip(0, 255).astype(np.uint8))
        opacities.append((255 * cover_HW).round().astype(np.uint8))
    return np.stack(shots), np.stack(opacities)


def draw_screen(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draws an empty green screen (H, W, 3) float32, with a gradient of light and folds in the cloth."""
    colour = random.uniform(SCREEN_LOW, SCREEN_HIGH)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    slope, folds = random.uniform(-0.15, 0.15, 2), random.uniform(0, 0.04)
    light_HW = 1 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5)
    light_HW += folds * np.sin(2 * pi * (random.uniform(2, 6) * x + random.uniform(-1, 1) * y))
    return np.asarray((light_HW[..., None] * colour).astype(np.float32))


def background_length(seed: int, frames: int) -> int:
    """Returns how many frames ``simulate_background`` returns for a seed."""
    return frames if _moves(rng(seed, 1)) else 1


def simulate_background(seed: int, *, frames: int, height: int, width: int) -> np.ndarray:
    """Simulates a background, a pure function of the arguments; half of all are static, the others pan.

    Returns:
        Frames (T, H, W, 3) uint8 RGB; T = 1 if static.
    """
    random = rng(seed, 1)
    moves = _moves(random)
    count = frames if moves else 1
    step = random.uniform(-MAX_PAN, MAX_PAN, 2) * height / 80 * moves
    margin = np.ceil(np.abs(step) * (count - 1)).astype(int)
    rows, columns = height + int(margin[0]), width + int(margin[1])
    canvas_HWC = _draw_clutter(random, rows, columns)
    start = np.where(step < 0, margin, 0)
    out = []
    for t in range(count):
        top, left = start + step * t
        move = np.array([[1, 0, left], [0, 1, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        out.append(cv2.warpAffine(canvas_HWC, move, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE))
    return np.stack(out)


def _moves(random: np.random.Generator) -> bool:
    """Draws whether a background moves, its first draw."""
    return random.random() < 0.5


def _draw_figure(random: np.random.Generator) -> _Figure:
    walks, waves, hops = random.random(3) < (0.7, 0.5, 0.2)
    parts = (SKINS, CLOTHES, CLOTHES, HAIRS)
    colours = np.array([some[int(random.integers(len(some)))] for some in parts], np.float64)
    return _Figure(
        height=float(random.uniform(0.55, 0.95)),
        x=float(random.uniform(0.2, 0.8)),
        velocity=float(random.choice((-1, 1)) * random.uniform(0.004, 0.012) * walks),
        pace=float(random.uniform(0.2, 0.5)),
        phase=float(random.uniform(0, 2 * pi)),
        legs=float(random.uniform(0.35, 0.6) if walks else random.uniform(0.0, 0.15)),
        arms=float(random.uniform(0.3, 0.9)),
        lift=float(random.uniform(1.6, 2.6) if waves else 0.15),
        hop=float(random.uniform(0.03, 0.08) * hops),
        colours=(colours + random.normal(0, 10, colours.shape)).clip(0, 255),
        stripe=np.array(CLOTHES[int(random.integers(len(CLOTHES)))], np.float64),
    )


def _render_exposure(figures: list[_Figure], t: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns premultiplied colours (H, W, 3) and opacity (H, W) of the figures, float32."""
    rows, columns = height * SUPERSAMPLING, width * SUPERSAMPLING
    total = np.zeros((height, width, 4), np.float32)
    for moment in range(MOMENTS):
        layer = np.zeros((rows, columns, 4), np.uint8)
        for figure in figures:
            _paint(layer, figure, t + SHUTTER * moment / MOMENTS)
        total += cv2.resize(layer, (width, height), interpolation=cv2.INTER_AREA)
    total /= MOMENTS
    return total[..., :3], total[..., 3] / 255


def _paint(layer: np.ndarray, figure: _Figure, time: float) -> None:
    """Draws a figure into a layer (H, W, 4) of RGB and opacity."""
    rows, columns = layer.shape[:2]
    size = figure.height * rows
    swing = sin(figure.phase + figure.pace * time)
    skin, shirt, trousers, hair = figure.colours
    position = (figure.x + figure.velocity * time) % 2  # back and forth
    hop = figure.hop * abs(swing) + 0.01 * abs(cos(figure.phase + figure.pace * time))
    hip = np.array([columns * min(position, 2 - position), rows * 0.98 - size * (0.47 + hop)])
    neck = hip + size * np.array([0.02 * swing, -0.33])

    def limb(start: np.ndarray, angle: float, length: float, thickness: float, colour: np.ndarray) -> np.ndarray:
        end = start + size * length * np.array([sin(angle), cos(angle)])
        _line(layer, start, end, thickness * size, colour)
        return end

    def arm(side: int) -> None:
        angle = side * (figure.arms * swing + 0.2) + (figure.lift if side > 0 else 0.1 * side)
        elbow = limb(neck + size * np.array([side * 0.075, 0.03]), angle, 0.17, 0.065, shirt)
        hand = limb(elbow, angle + side * (0.4 + 0.3 * swing), 0.15, 0.05, skin)
        limb(hand, angle, 0.02, 0.055, skin)

    arm(-1)
    for side in (-1, 1):
        thigh = side * figure.legs * swing
        knee = limb(hip + size * np.array([side * 0.04, 0.0]), thigh, 0.23, 0.095, trousers)
        foot = limb(knee, thigh - max(0.0, -side * swing) * figure.legs, 0.22, 0.07, trousers)
        limb(foot, pi / 2, 0.05, 0.045, hair)
    _line(layer, hip, neck + size * np.array([0.0, 0.04]), 0.17 * size, shirt)
    middle, across, down = (hip + neck) / 2, size * np.array([0.05, 0.0]), size * np.array([0.0, 0.03])
    _line(layer, middle - across, middle + across, 0.035 * size, figure.stripe)
    head = neck + size * np.array([0.01 * swing, -0.1])
    _line(layer, neck, head, 0.06 * size, skin)
    _line(layer, head, head - down, 0.125 * size, hair)
    _line(layer, head + 0.4 * down, head + down, 0.1 * size, skin)
    for strand in range(-2, 3):
        limb(head - size * np.array([0.0, 0.06]), pi + 0.35 * strand + 0.2 * swing, 0.06, 0.006, hair)
    arm(1)


def _line(layer: np.ndarray, start: np.ndarray, end: np.ndarray, thickness: float, colour: np.ndarray) -> None:
    """Draws a line into a picture of RGB, (H, W, 3), or of RGB and opacity, (H, W, 4)."""
    ends = [tuple(int(value) for value in np.round(point * (1 << SHIFT))) for point in (start, end)]
    value = (*(float(part) for part in colour), 255.0)[: layer.shape[2]]
    cv2.line(layer, ends[0], ends[1], value, max(1, round(thickness)), cv2.LINE_8, SHIFT)


def _draw_clutter(random: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Returns a picture (H, W, 3) uint8 of coarse colours, with shapes on top and fine grain."""
    coarse = random.uniform(30, 225, (3, 4, 3)).astype(np.float32)
    picture = cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)
    palette = np.array(SKINS + CLOTHES + HAIRS, np.float64)
    for _ in range(int(random.integers(8, 24))):
        colour = (palette[int(random.integers(len(palette)))] + random.normal(0, 15, 3)).clip(0, 255)
        start = random.uniform(0, 1, 2) * (columns, rows)
        end = start + random.normal(0, 0.2, 2) * rows
        _line(picture, start, end, float(random.uniform(0.02, 0.2)) * rows, colour)
    grain = random.normal(0, 8, (rows, columns, 1))
    return np.asarray((picture + grain).clip(0, 255).astype(np.uint8))
