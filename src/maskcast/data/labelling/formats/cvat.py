"""The common part of CVAT's two XML formats of version 1.1: tasks, labels and documents.

Frame numbers are those of the video, or indices of the uploaded images. In the file of a whole project they
continue from task to task of a subset.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from maskcast.data.images import Size
from maskcast.data.labelling.formats.base import (
    ClassList,
    Export,
    FrameId,
    ImportedFrame,
    LabelFormat,
    Region,
    checked_size,
)
from maskcast.data.labelling.formats.cvat_shapes import OBJECT, SCORE, Shape, is_small_number
from maskcast.errors import MaskcastError
from maskcast.writing import write_json

FILE = "annotations.xml"


class Cvat(LabelFormat):
    """The common part of both formats."""

    tool = "CVAT"
    files = (FILE, "*.xml")
    duplicate_remedy = (
        "where jobs overlap, export their task, in which CVAT merges them; else leave one of the two out"
    )


@dataclass(frozen=True)
class Task:
    """A task, or a job of a task, as described in ``<meta>``.

    Attributes:
        id: id in the file of a project; None in the file of a single task.
        subset: subset in the file of a project, or None.
        clips: names that its video or folder of images may have, the likeliest first.
        frames: its frames as numbered in the video; empty if the file does not say.
        offset: offset of its frame numbers in the file.
        size: frame size of a video, or None.
    """

    id: str | None
    subset: str | None
    clips: Sequence[str]
    frames: range
    offset: int
    size: Size | None

    def frame_ids(self, frame: int) -> list[FrameId]:
        """Returns the clips and frames that a frame number of the file may refer to."""
        return [(clip, frame - self.offset) for clip in self.clips]


def frame_of(
    where: str,
    frame_ids: Sequence[FrameId],
    size: Size | None,
    shapes: Iterable[Shape],
    names: Sequence[str],
    *,
    ordered: bool,
    class_list: ClassList | None,
    left_out: bool,
) -> ImportedFrame:
    """Returns a `ImportedFrame` with its shapes."""
    layers = sorted(shapes, key=Shape.z_order)
    objects = [shape.object() for shape in layers]
    read = partial(_regions, layers)
    return ImportedFrame(where, frame_ids, size, objects, read, names, ordered, class_list, left_out)


def class_list_of(root: ET.Element, file: Path) -> ClassList | None:
    """Returns the labels of a task or project, as ``<meta>`` lists them; None if it does not."""
    names = frozenset(name.text or "" for name in root.findall("meta//labels/label/name"))
    return ClassList(file, names) if names else None


def _regions(layers: Sequence[Shape], size: Size) -> Iterator[Region]:
    yield from (shape.region(size) for shape in layers)


def names_of(image: str, subset: str | None) -> list[str]:
    """Returns the names that an image may have: exports of projects have a folder per subset."""
    return [f"{subset}/{image}", image] if subset else [image]


def tasks_of(root: ET.Element, file: Path) -> list[Task]:
    """Returns the tasks of a file.

    Raises:
        MaskcastError: a number of frames or a size is not a valid number.
    """
    tasks: list[Task] = []
    offset, subset = 0, None
    for task in root.findall("meta/project/tasks/task"):
        if task.findtext("subset") != subset:
            offset, subset = 0, task.findtext("subset")
        frames = _frames(task, file)
        video_names = [Path(source.text or "").stem for source in task.findall("source")]
        names = [task.findtext("name") or "", *video_names]
        size = _size(task.find("original_size"), file)
        tasks.append(Task(task.findtext("id"), subset, _clips(names), frames, offset, size))
        offset += frames.start + len(frames) * frames.step
    for tag in () if tasks else ("task", "job"):
        if (element := root.find(f"meta/{tag}")) is not None:
            # names of uploads
            video_names = [Path(source.text or "").stem for source in root.findall("meta//source")]
            names = [element.findtext("name") or "", file.parent.name, file.stem, *video_names]
            size = _size(root.find("meta//original_size"), file)  # for a job, beside its element
            tasks.append(Task(None, None, _clips(names), _frames(element, file), 0, size))
    return tasks


def task_document(name: str, export: Export, size: Size, frames: int, mode: str) -> ET.Element:
    """Returns the document of a task with its ``<meta>``, without any shapes."""
    root = ET.Element("annotations")
    ET.SubElement(root, "version").text = "1.1"
    meta = ET.SubElement(root, "meta")
    task = ET.SubElement(meta, "task")
    height, width = size
    fields: Mapping[str, Any] = {
        "name": name,
        "size": frames,
        "mode": mode,
        "overlap": 0,
        "start_frame": 0,
        "stop_frame": frames - 1,
        "z_order": "True",
    }
    for key, value in fields.items():
        ET.SubElement(task, key).text = str(value)
    labels = ET.SubElement(task, "labels")
    for label in export.labels:
        label_element = ET.SubElement(labels, "label")
        ET.SubElement(label_element, "name").text = label
        attributes = ET.SubElement(label_element, "attributes")
        for attribute in _attributes(export):
            entry = ET.SubElement(attributes, "attribute")
            for key, value in attribute.items():
                ET.SubElement(entry, key).text = str(value)
    original = ET.SubElement(task, "original_size")
    ET.SubElement(original, "width").text, ET.SubElement(original, "height").text = str(width), str(height)
    return root


def write_settings(folder: Path, export: Export) -> None:
    """Writes ``labels.json``, the labels in the form that CVAT's task constructor accepts (tab `Raw`)."""
    attributes = [attribute | {"mutable": True, "values": [""]} for attribute in _attributes(export)]
    labels = [{"name": name, "attributes": attributes} for name in export.labels]
    write_json(folder / "labels.json", labels)


def write_document(root: ET.Element, file: Path) -> None:
    """Indents and writes a document."""
    ET.indent(root)
    ET.ElementTree(root).write(file, "utf-8", xml_declaration=True)


def _clips(names: Sequence[str]) -> list[str]:
    return [unquote(name.strip()) for name in names if name.strip()]


def _frames(task: ET.Element, file: Path) -> range:
    first = _count(task, "start_frame", file, 0)
    last = _count(task, "stop_frame", file, _count(task, "size", file, 0) - 1)  # older files only have the size
    step = re.search(r"step\s*=\s*([1-9]\d{0,5})\b", task.findtext("frame_filter") or "")
    return range(first, last + 1, int(step[1]) if step else 1)


def _count(task: ET.Element, key: str, file: Path, default: int) -> int:
    text = (task.findtext(key) or "").strip()
    if text and not is_small_number(text):
        raise MaskcastError(f"{file}: {key} of meta must be a number of frames, got {text!r}; fix it")
    return int(text) if text else default


def _size(original: ET.Element | None, file: Path) -> Size | None:
    if original is None:
        return None
    sides = [(original.findtext(key) or "").strip() for key in ("height", "width")]
    if not all(map(is_small_number, sides)):
        raise MaskcastError(f"{file}: original_size of meta must be two integers, got {sides}; fix it")
    return checked_size(int(sides[0]), int(sides[1]), f"{file}: original_size")


def _attributes(export: Export) -> list[dict[str, Any]]:
    names = (SCORE, OBJECT) if export.instances else (SCORE,)
    rest = {"mutable": "True", "input_type": "text", "default_value": "", "values": ""}
    return [{"name": name, **rest} for name in names]
