"""Converts shapes that people draw to masks.

Whatever tool they come from, all shapes become polygons, and polygons become masks by COCO's rule (its reference
code, `maskApi.c`). Coordinates are in pixels; (0, 0) is the corner of the first pixel.

Legend: H height, W width, P points.
"""

import binascii
from collections import Counter
from collections.abc import Sequence
from math import cos, pi, radians, sin
from pathlib import Path

import numpy as np
from faster_coco_eval.core import mask as rle
from PIL import Image

from maskcast.data.coco.masks import MAX_DISTANCE
from maskcast.data.decoding import decode
from maskcast.data.images import Size
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import pluralize, short_repr

ELLIPSE_POINTS = 90


def polygon(points_P2: Sequence[Sequence[float]], size: Size, where: str) -> np.ndarray:
    """Returns the pixels inside a polygon, (H, W) bool.

    Raises:
        MaskcastError: it has fewer than three points, or a point far outside the frame.
    """
    if len(points_P2) < 3:
        raise MaskcastError(
            f"{where}: a polygon of {pluralize(len(points_P2), 'point')} has no area; draw at least 3"
        )
    flat = np.asarray(points_P2, np.float64)
    if not np.isfinite(flat).all() or np.abs(flat).max() > MAX_DISTANCE * max(size):
        raise MaskcastError(f"{where}: a point is far outside the frame of {size[1]}x{size[0]}; fix it")
    return rle.decode(rle.frPyObjects([flat.ravel().tolist()], *size))[..., 0] > 0


def report_without_area(file: Path, counts: Counter[str]) -> None:
    """Reports the numbers of shapes without area that are left out, if any."""
    if counts:
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        say(f"{file}: left out {kinds}: they have no area")


def decode_base64_image(text: object, key: str, where: str) -> Image.Image:
    """Returns the image in a base64 text, which is the value of ``key``.

    Raises:
        MaskcastError: the text is not base64, or not a readable image.
    """
    if not isinstance(text, str):
        raise MaskcastError(f"{where}: {key} must be a PNG in base64, not {short_repr(text)}; export it again")
    try:
        content = binascii.a2b_base64("".join(text.split()), strict_mode=True)  # some writers insert line breaks
    except binascii.Error as error:
        raise MaskcastError(f"{where}: {key} is not valid base64 ({error}); export it again") from None
    return decode(where, content).image


def rectangle(
    left: float, top: float, width: float, height: float, rotation: float, centre: Sequence[float]
) -> list[list[float]]:
    """Returns the corners of a rectangle, rotated clockwise about a point by ``rotation`` degrees."""
    corners = [(left, top), (left + width, top), (left + width, top + height), (left, top + height)]
    return _rotate(corners, rotation, centre)


def ellipse(x: float, y: float, radius_x: float, radius_y: float, rotation: float) -> list[list[float]]:
    """Returns points of an ellipse, rotated clockwise about its centre by ``rotation`` degrees."""
    angles = [2 * pi * k / ELLIPSE_POINTS for k in range(ELLIPSE_POINTS)]
    return _rotate([(x + radius_x * cos(a), y + radius_y * sin(a)) for a in angles], rotation, (x, y))


def _rotate(points: Sequence[tuple[float, float]], rotation: float, centre: Sequence[float]) -> list[list[float]]:
    c, s, (x0, y0) = cos(radians(rotation)), sin(radians(rotation)), centre
    return [[x0 + c * (x - x0) - s * (y - y0), y0 + s * (x - x0) + c * (y - y0)] for x, y in points]
