"""The colours of class ids, in pictures and in palette images."""

from functools import cache

import numpy as np
from PIL import Image

from maskcast.labels import IGNORE

CANVAS = (28, 33, 40)  # background class, if no frame is shown under the mask


@cache
def palette() -> np.ndarray:
    """Returns the colour of each class id, (256, 3) uint8; adjacent ids have very different hues."""
    ids = np.arange(256)
    hue = 2 * np.pi * ((0.07 + 0.71828 * ids) % 1)  # separates ids that differ by 1 to 6 or a multiple of 8
    lightness = np.array([0.74, 0.62, 0.84])[ids % 3]
    chroma = np.array([0.17, 0.19, 0.13])[ids % 3]
    colours = _oklab_to_rgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    colours[0], colours[IGNORE] = CANVAS, (70, 74, 80)
    return colours


def palette_image(mask_HW: np.ndarray) -> Image.Image:
    """Returns a mask, (H, W) uint8, as an 8-bit palette image whose indices are the class ids."""
    image = Image.fromarray(mask_HW)
    image.putpalette(palette().tobytes())
    return image


def _oklab_to_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Converts Oklab, a perceptually uniform colour space, to sRGB (N, 3) uint8 (matrices: Ottosson 2020)."""
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (to_linear @ cones**3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded.T).astype(np.uint8)
