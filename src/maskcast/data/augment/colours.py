"""Colour augmentation in two steps: draw a change, then apply it to one image or to many.

All colour changes are one 3x4 matrix, then a blur, then noise. All random draws use the generator that is passed
in, not global random state, so batches can be made in any thread.

Legend: T frames, H height, W width, C = 3 channels (RGB); images are uint8.
"""

from dataclasses import dataclass
from math import cos, pi, sin, sqrt
from typing import Annotated

import cv2
import numpy as np
from pydantic import Field

from maskcast.params import Params

Probability = Annotated[float, Field(ge=0, le=1)]
Blur = Annotated[float, Field(ge=0, le=100)]
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma


class ColourParams(Params):
    """What may change about the colours of an image; the defaults change nothing."""

    brightness: float = Field(default=0.0, ge=0, le=1)
    """Maximum relative change of brightness."""
    contrast: float = Field(default=0.0, ge=0, le=1)
    """Maximum relative change of contrast, around mid-grey."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Maximum relative change of saturation."""
    hue: float = Field(default=0.0, ge=0, le=0.5)
    """Maximum shift of the hue, as a fraction of the colour circle."""
    channels: float = Field(default=0.0, ge=0, le=1)
    """Maximum relative change of the red, green and blue channels, drawn separately for each."""
    blur: Blur = 0.0
    """Maximum standard deviation of a Gaussian blur, in pixels."""
    noise: float = Field(default=0.0, ge=0)
    """Maximum standard deviation of Gaussian pixel noise, on the 0-255 scale."""


@dataclass(frozen=True)
class ColourTransform:
    """A colour change for the frames of one clip.

    Attributes:
        matrix_34: maps (R, G, B, 1) to the new colours; None keeps the colours.
        sigma: standard deviation of the blur, in pixels; 0 means no blur.
        noise_THWC: noise for each frame, on the 0-255 scale; None means no noise.
    """

    matrix_34: np.ndarray | None
    sigma: float
    noise_THWC: np.ndarray | None


def draw_colour_transform(
    params: ColourParams, shape: tuple[int, ...], random: np.random.Generator
) -> ColourTransform:
    """Draws a colour change.

    Args:
        params: ranges of the change.
        shape: of the frames, (T, H, W, C). All frames get the same matrix and blur, each gets noise of its own.
        random: draws the change; its state advances.
    """
    matrix_34, sigma, noise_THWC = None, 0.0, None
    if params.brightness or params.contrast or params.saturation or params.hue:
        limits = np.array([params.brightness, params.contrast, params.saturation])
        brightness, contrast, saturation = 1 + random.uniform(-limits, limits)
        matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * GREY)
        if params.hue:
            matrix = matrix @ _hue_rotation(random.uniform(-params.hue, params.hue))
        matrix_34 = np.hstack([matrix, np.full((3, 1), brightness * 127.5 * (1 - contrast))])
    if params.channels:
        gains = 1 + random.uniform(-params.channels, params.channels, 3)
        matrix_34 = gains[:, None] * (np.eye(3, 4) if matrix_34 is None else matrix_34)
    if params.blur:
        sigma = float(random.uniform(0, params.blur))
    if params.noise:
        noise_THWC = random.standard_normal(shape, np.float32) * random.uniform(0, params.noise)
    return ColourTransform(matrix_34, sigma, noise_THWC)


def recolour(frames_THWC: np.ndarray, colours: ColourTransform) -> np.ndarray:
    """Returns the frames of a clip with changed colours, (T, H, W, C)."""
    return np.stack([_recolour_frame(frame_HWC, colours, t) for t, frame_HWC in enumerate(frames_THWC)])


def recolour_image(image_HWC: np.ndarray, params: ColourParams, random: np.random.Generator) -> np.ndarray:
    """Draws a colour change and applies it to one image."""
    return recolour(image_HWC[None], draw_colour_transform(params, (1, *image_HWC.shape), random))[0]


def _recolour_frame(frame_HWC: np.ndarray, colours: ColourTransform, t: int) -> np.ndarray:
    if colours.matrix_34 is not None:
        frame_HWC = cv2.transform(frame_HWC, colours.matrix_34)  # saturates at 0 and 255
    if colours.sigma > 0.1:
        frame_HWC = cv2.GaussianBlur(frame_HWC, (0, 0), colours.sigma)
    if colours.noise_THWC is not None:
        frame_HWC = np.clip(frame_HWC + colours.noise_THWC[t] + 0.5, 0, 255).astype(np.uint8)
    return frame_HWC


def _hue_rotation(fraction: float) -> np.ndarray:
    """Returns the matrix (3, 3) that rotates colours about the grey axis by ``fraction`` of the colour circle."""
    angle = 2 * pi * fraction
    cross_product = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / sqrt(3)
    return cos(angle) * np.eye(3) + (1 - cos(angle)) / 3 + sin(angle) * cross_product
