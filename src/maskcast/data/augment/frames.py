"""Augmentation that moves a frame and its mask together.

All geometry of a sample (flip, zoom, rotation, shift, crop) is one affine map, applied once to the frame
(bilinear) and once to the mask (nearest); all colour changes are one 3x4 matrix. Every draw comes from the
generator that is passed in: no global random state is touched, so batches can be made in any thread.

Legend: H height, W width, C = 3 channels (RGB); frames and masks are uint8.
"""

from math import cos, pi, radians, sin, sqrt
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field, model_validator

from maskcast.labels import IGNORE
from maskcast.params import Params

Probability = Annotated[float, Field(ge=0, le=1)]
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma


class ColourParams(Params):
    """What may change about the colours of an image; the defaults change nothing."""

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Greatest relative change of brightness."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Greatest relative change of contrast, around mid-grey."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Greatest relative change of saturation."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Greatest turn of the hue, as a fraction of the circle."""
    blur: float = Field(default=0.0, ge=0)
    """Greatest standard deviation of a Gaussian blur, in pixels."""
    noise: float = Field(default=0.0, ge=0)
    """Greatest standard deviation of Gaussian pixel noise, in levels of 255."""


class AugmentParams(ColourParams):
    """What may change about a training frame; the defaults change nothing but its mirror image."""

    hflip: Probability = 0.5
    """Probability of mirroring left and right."""
    zoom: tuple[float, float] = (1.0, 1.0)
    """Least and greatest magnification, drawn evenly on a log scale."""
    rotate: float = Field(default=0.0, ge=0, le=180)
    """Greatest rotation either way, in degrees."""
    shift: float = Field(default=0.0, ge=0, le=1)
    """Greatest shift either way, as a fraction of the height and of the width of the result."""
    crop: tuple[int, int] | None = None
    """Height and width of a window cut out at random; null keeps whole frames."""
    crop_on_object: Probability = 0.0
    """Probability that the window must hold a pixel of an object, each pixel as likely as any other, as nnU-Net
    does for a third of its patches; else it may lie anywhere."""

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> "AugmentParams":
        if not 0 < self.zoom[0] <= self.zoom[1]:
            raise ValueError(f"zoom {self.zoom} must be two factors above 0, the smaller first")
        if self.crop is not None and min(self.crop) < 1:
            raise ValueError(f"crop {self.crop} must be a height and a width of at least 1")
        return self


def augment(
    frame_HWC: np.ndarray, mask_HW: np.ndarray, params: AugmentParams, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns a changed copy of a frame and of its mask.

    Args:
        frame_HWC: uint8 RGB.
        mask_HW: uint8 class ids.
        params: what may change.
        random: decides what does; its state is advanced.

    Returns:
        The frame and the mask, of ``params.crop`` (never larger than the frame) or the size they came in. What
        the map uncovers repeats the frame's edge and is ``IGNORE`` in the mask.
    """
    height, width = mask_HW.shape
    rows, columns = params.crop or (height, width)
    rows, columns = min(rows, height), min(columns, width)
    corner = _corner(mask_HW, (rows, columns), params.crop_on_object, random)
    map_23 = _affine(params, random, corner, (rows, columns))
    size = (columns, rows)
    flags = cv2.WARP_INVERSE_MAP
    frame = cv2.warpAffine(
        frame_HWC, map_23, size, flags=flags | cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    mask = cv2.warpAffine(
        mask_HW, map_23, size, flags=flags | cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE
    )
    return recolour(frame, params, random), mask


def _corner(
    mask_HW: np.ndarray, crop: tuple[int, int], on_object: float, random: np.random.Generator
) -> tuple[int, int]:
    """Returns (top, left) of the window."""
    last = np.subtract(mask_HW.shape, crop)
    low, high = np.zeros_like(last), last
    if on_object and random.random() < on_object:
        pixels = np.flatnonzero((mask_HW != 0) & (mask_HW != IGNORE))
        if len(pixels):
            pixel = np.array(divmod(int(random.choice(pixels)), mask_HW.shape[1]))
            low, high = np.maximum(pixel - crop + 1, 0), np.minimum(pixel, last)
    top, left = random.integers(low, high + 1)
    return int(top), int(left)


def _affine(
    params: AugmentParams, random: np.random.Generator, corner: tuple[int, int], crop: tuple[int, int]
) -> np.ndarray:
    """Returns the (2, 3) map from (x, y) of the result to those of the frame, about the window's centre."""
    mirror = -1.0 if random.random() < params.hflip else 1.0
    zoom = float(np.exp(random.uniform(*np.log(params.zoom))))
    angle = radians(random.uniform(-params.rotate, params.rotate))
    turn = np.array([[mirror * cos(angle), -mirror * sin(angle)], [sin(angle), cos(angle)]]) / zoom
    size, start = np.array(crop[::-1]), np.array(corner[::-1])
    centre = (size - 1) / 2
    shift = random.uniform(-params.shift, params.shift, 2) * size
    return np.column_stack([turn, start + centre - turn @ (centre + shift)])


def recolour(frame_HWC: np.ndarray, params: ColourParams, random: np.random.Generator) -> np.ndarray:
    """Returns a frame (uint8 RGB) in changed colours; ``random`` decides which, and its state is advanced."""
    if params.brightness or params.contrast or params.saturation or params.hue:
        limits = np.array([params.brightness, params.contrast, params.saturation])
        brightness, contrast, saturation = 1 + random.uniform(-limits, limits)
        matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * GREY)
        if params.hue:
            matrix = matrix @ _hue_turn(random.uniform(-params.hue, params.hue))
        offset = np.full((3, 1), brightness * 127.5 * (1 - contrast))
        frame_HWC = cv2.transform(frame_HWC, np.hstack([matrix, offset]))  # saturates at 0 and 255
    if params.blur:
        sigma = random.uniform(0, params.blur)
        frame_HWC = cv2.GaussianBlur(frame_HWC, (0, 0), sigma) if sigma > 0.1 else frame_HWC
    if params.noise:
        noise = random.standard_normal(frame_HWC.shape, np.float32) * random.uniform(0, params.noise)
        frame_HWC = np.clip(frame_HWC + noise + 0.5, 0, 255).astype(np.uint8)
    return frame_HWC


def _hue_turn(part: float) -> np.ndarray:
    """Returns the matrix (3, 3) that turns colours about the axis of greys, by a part of the circle."""
    angle = 2 * pi * part
    off = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / sqrt(3)
    return cos(angle) * np.eye(3) + (1 - cos(angle)) / 3 + sin(angle) * off
