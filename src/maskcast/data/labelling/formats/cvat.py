"""What CVAT's two XML formats of version 1.1 share: labels, shapes and masks.

A mask is a list of run lengths, row by row, background first, of the box ``left, top, width, height`` alone.
Numbers of frames are those of the video, or places among the images that were uploaded. In the file of a project
they go on from task to task of a subset.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from maskcast.data.labelling.formats.base import Export, FoundFrame, LabelFormat, Place, Region, Size, checked_size
from maskcast.data.labelling.formats.shapes import ellipse, polygon, rectangle
from maskcast.errors import MaskcastError
from maskcast.writing import write_json

FILE = "annotations.xml"
SCORE, OBJECT = "confidence", "object"  # attributes of each label
TRACKS = 1_000_000  # and the number of a track: objects without a number of their own
SHAPES = ("mask", "polygon", "box", "ellipse")
NO_AREA = ("polyline", "points", "cuboid", "skeleton")  # said, and left out


class Cvat(LabelFormat):
    """What both formats are like."""

    tool = "CVAT"
    files = (FILE, "*.xml")
    twice = "where jobs overlap, export their task, in which CVAT merges them; else leave one of the two out"
    tracks = True
    scores = True


@dataclass(frozen=True)
class Task:
    """A task, or a job of one, as ``<meta>`` tells of it.

    Attributes:
        id: in the file of a project; None in that of one task.
        subset: likewise.
        clips: what its video or folder of images may be called, the likeliest first.
        frames: that it has, as the video counts them; empty where the file does not tell.
        before: how much higher the numbers of its frames are in the file.
        size: of a video.
    """

    id: str | None
    subset: str | None
    clips: Sequence[str]
    frames: range
    before: int
    size: Size | None

    def places(self, frame: int) -> list[Place]:
        """Returns what a frame may be, by its number in the file."""
        return [(clip, frame - self.before) for clip in self.clips]


@dataclass(frozen=True)
class Shape:
    """A shape of a frame.

    Attributes:
        element: of the file.
        label: its class.
        where: how errors name it.
        track: its number, of a shape of a track.
    """

    element: ET.Element
    label: str | None
    where: str
    track: int | None = None

    def z_order(self) -> int:
        """Returns its layer: those of higher ones are in front."""
        return whole(self.element, "z_order", self.where, 0)

    def object(self) -> tuple[str, int | None]:
        """Returns class and object; where it does not tell its object, that is its track."""
        if not self.label:
            raise MaskcastError(f"{self.where}: has no label; give it one in CVAT")
        known = self._told().get(OBJECT, "")
        if known and not _is_small(known):
            raise MaskcastError(
                f"{self.where}: attribute {OBJECT} must be a number, got {known[:40]!r}; mend it or empty it"
            )
        return self.label, int(known) if known else None if self.track is None else TRACKS + self.track

    def region(self, size: Size) -> Region:
        """Returns its pixels in a frame of a size."""
        class_name, instance = self.object()
        try:
            score = float(self._told()[SCORE])
        except (KeyError, ValueError):
            score = None  # of a shape that a person drew
        return Region(class_name, _shape_mask(self.element, size, self.where), instance, score)

    def _told(self) -> dict[str | None, str]:
        return {one.get("name"): (one.text or "").strip() for one in self.element.findall("attribute")}


def frame_of(
    where: str,
    places: Sequence[Place],
    size: Size | None,
    shapes: Iterable[Shape],
    names: Sequence[str],
    *,
    ordered: bool,
) -> FoundFrame:
    """Returns a frame (see `FoundFrame`) with its shapes."""
    layers = sorted(shapes, key=Shape.z_order)
    objects = [one.object() for one in layers]
    return FoundFrame(where, places, size, objects, partial(_regions, layers), names, ordered)


def _regions(layers: Sequence[Shape], size: Size) -> Iterator[Region]:
    yield from (one.region(size) for one in layers)


def names_of(image: str, subset: str | None) -> list[str]:
    """Returns what an image may be called: exports of projects have a folder for each subset."""
    return [f"{subset}/{image}", image] if subset else [image]


def tasks_of(root: ET.Element, file: Path) -> list[Task]:
    """Returns the tasks of a file.

    Raises:
        MaskcastError: a number of frames or a size is none.
    """
    found: list[Task] = []
    before, subset = 0, None
    for task in root.findall("meta/project/tasks/task"):
        if task.findtext("subset") != subset:
            before, subset = 0, task.findtext("subset")
        frames = _frames(task, file)
        films = [Path(one.text or "").stem for one in task.findall("source")]
        names = [task.findtext("name") or "", *films]
        size = _size(task.find("original_size"), file)
        found.append(Task(task.findtext("id"), subset, _clips(names), frames, before, size))
        before += frames.start + len(frames) * frames.step
    for tag in () if found else ("task", "job"):
        if (alone := root.find(f"meta/{tag}")) is not None:
            films = [Path(one.text or "").stem for one in root.findall("meta//source")]  # what was uploaded
            names = [alone.findtext("name") or "", file.parent.name, file.stem, *films]
            size = _size(root.find("meta//original_size"), file)  # of a job it stands beside it
            found.append(Task(None, None, _clips(names), _frames(alone, file), 0, size))
    return found


def written_masks(regions: Sequence[Region]) -> Iterator[tuple[Region, dict[str, str]]]:
    """Yields the regions that have pixels, each with the attributes of its ``<mask>``."""
    for order, region in enumerate(regions):
        if region.mask_HW.any():
            yield region, _mask_attributes(region.mask_HW) | {"z_order": str(order)}


def add_mask(parent: ET.Element, region: Region, attributes: dict[str, str]) -> None:
    """Adds a ``<mask>``, with the confidence and the object of its region."""
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
    turn = number(element, "rotation", where, 0.0)
    if tag == "ellipse":
        values = [number(element, key, where) for key in ("cx", "cy", "rx", "ry")]
        return polygon(ellipse(values[0], values[1], values[2], values[3], turn), size, where)
    left, top, right, bottom = (number(element, key, where) for key in ("xtl", "ytl", "xbr", "ybr"))
    centre = ((left + right) / 2, (top + bottom) / 2)
    return polygon(rectangle(left, top, right - left, bottom - top, turn, centre), size, where)


def points_of(element: ET.Element, where: str) -> list[list[float]]:
    """Returns the points of a polygon, x and y each."""
    try:
        points = [[float(value) for value in pair.split(",")] for pair in element.get("points", "").split(";")]
    except ValueError:
        points = [[]]
    if any(len(point) != 2 for point in points):
        raise MaskcastError(
            f"{where}: points must be x,y;x,y;..., got {element.get('points', '')[:40]!r}; mend it"
        )
    return points


def number(element: ET.Element, key: str, where: str, default: float | None = None) -> float:
    """Returns a finite number of an element."""
    text = element.get(key)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise MaskcastError(f"{where}: {key} must be a number, got {text!r}; mend it")
    return value


def whole(element: ET.Element, key: str, where: str, default: int | None = None) -> int:
    """Returns an integer of an element."""
    value = number(element, key, where, default)
    if value != int(value):
        raise MaskcastError(f"{where}: {key} must be an integer, got {element.get(key)!r}; mend it")
    return int(value)


def document(name: str, export: Export, frames: int, mode: str) -> ET.Element:
    """Returns the document of a task, with its ``<meta>`` and without a shape."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    meta = ET.SubElement(root, "meta")
    task = ET.SubElement(meta, "task")
    height, width = export.size
    told: Mapping[str, Any] = {
        "name": name,
        "size": frames,
        "mode": mode,
        "overlap": 0,
        "start_frame": 0,
        "stop_frame": frames - 1,
        "z_order": "True",
    }
    for key, value in told.items():
        ET.SubElement(task, key).text = str(value)
    labels = ET.SubElement(task, "labels")
    for label in export.labels:
        one = ET.SubElement(labels, "label")
        ET.SubElement(one, "name").text = label
        attributes = ET.SubElement(one, "attributes")
        for attribute in _attributes(export):
            entry = ET.SubElement(attributes, "attribute")
            for key, value in attribute.items():
                ET.SubElement(entry, key).text = str(value)
    original = ET.SubElement(task, "original_size")
    ET.SubElement(original, "width").text, ET.SubElement(original, "height").text = str(width), str(height)
    return root


def write_settings(folder: Path, export: Export) -> None:
    """Writes the labels as CVAT's task constructor takes them (`Raw`): ``labels.json``."""
    attributes = [one | {"mutable": True, "values": [""]} for one in _attributes(export)]
    labels = [{"name": name, "attributes": attributes} for name in export.labels]
    write_json(folder / "labels.json", labels)


def written(root: ET.Element, file: Path) -> None:
    """Writes a document."""
    ET.indent(root)
    ET.ElementTree(root).write(file, "utf-8", xml_declaration=True)


def _clips(names: Sequence[str]) -> list[str]:
    return [unquote(name.strip()) for name in names if name.strip()]


def _frames(task: ET.Element, file: Path) -> range:
    first = _count(task, "start_frame", file, 0)
    last = _count(task, "stop_frame", file, _count(task, "size", file, 0) - 1)  # older files tell the size alone
    step = re.search(r"step\s*=\s*([1-9]\d{0,5})\b", task.findtext("frame_filter") or "")
    return range(first, last + 1, int(step[1]) if step else 1)


def _count(task: ET.Element, key: str, file: Path, default: int) -> int:
    text = (task.findtext(key) or "").strip()
    if text and not _is_small(text):
        raise MaskcastError(f"{file}: {key} of meta must be a number of frames, got {text!r}; mend it")
    return int(text) if text else default


def _size(original: ET.Element | None, file: Path) -> Size | None:
    if original is None:
        return None
    sides = [(original.findtext(key) or "").strip() for key in ("height", "width")]
    if not all(map(_is_small, sides)):
        raise MaskcastError(f"{file}: original_size of meta must be two integers, got {sides}; mend it")
    return checked_size(int(sides[0]), int(sides[1]), f"{file}: original_size")


def _is_small(text: str) -> bool:
    """Whether a text is a whole number of six digits at most."""
    return text.isdecimal() and len(text) < 7


def _attributes(export: Export) -> list[dict[str, Any]]:
    names = (SCORE, OBJECT) if export.instances else (SCORE,)
    rest = {"mutable": "True", "input_type": "text", "default_value": "", "values": ""}
    return [{"name": name, **rest} for name in names]


def _rle_mask(element: ET.Element, size: Size, where: str) -> np.ndarray:
    left, top, width, height = (whole(element, key, where) for key in ("left", "top", "width", "height"))
    if min(left, top) < 0 or min(width, height) < 1 or left + width > size[1] or top + height > size[0]:
        raise MaskcastError(
            f"{where}: its box, {width}x{height} at {left},{top}, is not within the frame of {size[1]}x{size[0]}; "
            "mend it"
        )
    try:
        runs = [int(text) for text in element.get("rle", "").split(",")]
    except ValueError:
        raise MaskcastError(
            f"{where}: rle must be run lengths, got {element.get('rle', '')[:40]!r}; mend it"
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
