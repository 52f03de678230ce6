"""Shapes and masks in CVAT's XML, one element each.

A mask is a list of run lengths, row by row, background first, for its box only: ``left, top, width, height``.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from maskcast.data.images import Size
from maskcast.data.labelling.formats.base import Region
from maskcast.data.labelling.formats.shapes import ellipse, polygon, rectangle
from maskcast.errors import MaskcastError

SCORE, OBJECT = "confidence", "object"  # attributes that every label gets
TRACKS = 1_000_000  # object numbers of tracks without one: TRACKS + the track's number
SHAPES = ("mask", "polygon", "box", "ellipse")
NO_AREA = ("tag", "polyline", "points", "cuboid", "skeleton")  # reported, and left out


@dataclass(frozen=True)
class Shape:
    """A shape of a frame.

    Attributes:
        element: XML element.
        label: class name.
        where: its name in errors.
        track: number of its track, or None.
    """

    element: ET.Element
    label: str | None
    where: str
    track: int | None = None

    def z_order(self) -> int:
        """Returns its layer; higher layers are in front."""
        return integer(self.element, "z_order", self.where, 0)

    def object(self) -> tuple[str, int | None]:
        """Returns class name and object number; without a number of its own, the number is that of the track."""
        if not self.label:
            raise MaskcastError(f"{self.where}: has no label; give it one in CVAT")
        number = self._attributes().get(OBJECT, "")
        if number and not is_small_number(number):
            raise MaskcastError(
                f"{self.where}: attribute {OBJECT} must be a number, got {number[:40]!r}; fix it or empty it"
            )
        return self.label, int(number) if number else None if self.track is None else TRACKS + self.track

    def region(self, size: Size) -> Region:
        """Returns the shape as a region of a frame of this size."""
        class_name, instance = self.object()
        try:
            score = float(self._attributes()[SCORE])
        except (KeyError, ValueError):
            score = None  # shapes that people draw have none
        return Region(class_name, _shape_mask(self.element, size, self.where), instance, score)

    def _attributes(self) -> dict[str | None, str]:
        return {one.get("name"): (one.text or "").strip() for one in self.element.findall("attribute")}


def mask_attributes(regions: Sequence[Region]) -> Iterator[tuple[Region, dict[str, str]]]:
    """Yields the regions that have pixels, each with the attributes of its ``<mask>`` element."""
    for order, region in enumerate(regions):
        if region.mask_HW.any():
            yield region, _mask_attributes(region.mask_HW) | {"z_order": str(order)}


def add_mask(parent: ET.Element, region: Region, attributes: dict[str, str]) -> None:
    """Adds a ``<mask>`` element with the region's confidence and object number."""
    mask = ET.SubElement(parent, "mask", attributes)
    if region.score is not None:
        ET.SubElement(mask, "attribute", name=SCORE).text = f"{region.score:.4f}"
    if region.instance is not None:
        ET.SubElement(mask, "attribute", name=OBJECT).text = str(region.instance)


def _mask_attributes(mask_HW: np.ndarray) -> dict[str, str]:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    box = mask_HW[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    flat = np.concatenate([[False], box.ravel(), [not box.flat[-1]]])  # runs start with background
    ends = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(ends, prepend=0)
    return {
        "rle": ", ".join(map(str, runs.tolist())),
        "left": str(columns[0]),
        "top": str(rows[0]),
        "width": str(box.shape[1]),
        "height": str(box.shape[0]),
    }


def _shape_mask(element: ET.Element, size: Size, where: str) -> np.ndarray:
    """Returns the pixels of a shape, (H, W) bool."""
    tag = element.tag
    if tag == "mask":
        return _rle_mask(element, size, where)
    if tag == "polygon":
        return polygon(points_of(element, where), size, where)
    rotation = number(element, "rotation", where, 0.0)
    if tag == "ellipse":
        values = [number(element, key, where) for key in ("cx", "cy", "rx", "ry")]
        return polygon(ellipse(values[0], values[1], values[2], values[3], rotation), size, where)
    left, top, right, bottom = (number(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    centre = ((left + right) / 2, (top + bottom) / 2)
    return polygon(rectangle(left, top, right - left, bottom - top, rotation, centre), size, where)


def points_of(element: ET.Element, where: str) -> list[list[float]]:
    """Returns the points (x, y) of a polygon."""
    try:
        points = [[float(value) for value in pair.split(",")] for pair in element.get("points", "").split(";")]
    except ValueError:
        points = [[]]
    if any(len(point) != 2 for point in points):
        raise MaskcastError(f"{where}: points must be x,y;x,y;..., got {element.get('points', '')[:40]!r}; fix it")
    return points


def number(element: ET.Element, key: str, where: str, default: float | None = None) -> float:
    """Returns a finite number from an attribute."""
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise MaskcastError(f"{where}: {key} must be a number, got {text!r}; fix it")
    return value


def integer(element: ET.Element, key: str, where: str, default: int | None = None) -> int:
    """Returns an integer from an attribute."""
    value = number(element, key, where, default)
    if value != int(value):
        raise MaskcastError(f"{where}: {key} must be an integer, got {element.get(key)!r}; fix it")
    return int(value)


def is_small_number(text: str) -> bool:
    """Whether a text is a whole number of at most six digits."""
    return text.isdecimal() and len(text) < 7


def _rle_mask(element: ET.Element, size: Size, where: str) -> np.ndarray:
    left, top, width, height = (integer(element, key, where) for key in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise MaskcastError(
            f"{where}: its box, {width}x{height} at {left},{top}, is not within the frame of {size[1]}x{size[0]}; "
            "fix it"
        )
    try:
        runs = [int(text) for text in element.get("rle", "").split(",")]
    except ValueError:
        raise MaskcastError(
            f"{where}: rle must be run lengths, got {element.get('rle', '')[:40]!r}; fix it"
        ) from None
    if min(runs) < 0 or sum(runs) != width * height:
        raise MaskcastError(
            f"{where}: the run lengths sum to {sum(runs)}, the box has {width * height} pixels; export it again"
        )
    mask_HW = np.zeros(size, bool)
    mask_HW[top : top + height, left : left + width] = (
        np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width).astype(bool)
    )
    return mask_HW
