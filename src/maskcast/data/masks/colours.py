"""The colours of class ids, in pictures and in palette images."""

from functools import cache

import numpy as np
from PIL import Image

from maskcast.labels import IGNORE

FIRST = (  # colours of ids 1 to 60
    "6715e1 49e604 be1506 f767c1 37ab6b 526cda ebd47d 2bd5ff 914237 ffa3b1 854e88 dc813b "
    "8c23a1 bafcbb 35877d daf86a 59aaf8 f26a64 3ce8ce 8a753c 5b9cba ecb293 6558f9 bf6bd2 "
    "c39308 d7a0e3 d7397b 566609 bd5cf8 9deef7 51d75e b87e99 aafa2e bc10c8 156f41 973462 "
    "73b598 716db5 cc1a95 ccb93e c74056 def39f 51aa3c 5b871d 7e2fd2 4e719d b5fadb a7c474 "
    "704abb 23d891 6b9852 f36ffc ab6d68 5ad7d7 e1897b 12a7a7 fdc010 8ee653 a35166 7a5526"
)
CANVAS = (28, 33, 40)  # background class, if no frame is shown under the mask


@cache
def palette() -> np.ndarray:
    """Returns the colour of each class id, (256, 3) uint8.

    Each of the first 60 ids has the colour of a grid in Oklab that is farthest from those before it, the canvas,
    the grey of ignored pixels and white. The distance of two colours is the least of three in CIE 1976 L*a*b*:
    half of the one in normal vision, those in deuteranopia and in protanopia (Machado, Oliveira and Fernandes
    2009).
    Colours of later ids are only different in hue from those of nearby ids.
    """
    ids = np.arange(256)
    hue = 2 * np.pi * ((0.07 + 0.71828 * ids) % 1)  # separates ids that differ by 1 to 6 or a multiple of 8
    lightness = np.array([0.74, 0.62, 0.84])[ids % 3]
    chroma = np.array([0.17, 0.19, 0.13])[ids % 3]
    colours = _oklab_to_rgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    first = np.frombuffer(bytes.fromhex(FIRST), np.uint8).reshape(-1, 3)
    colours[1 : len(first) + 1] = first
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
