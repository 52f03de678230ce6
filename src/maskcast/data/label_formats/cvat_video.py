"""CVAT for video 1.1: an XML per task of one clip, with an element per track; frames have numbers alone.

CVAT writes every frame of a track, keyframe or not. Of tracks that list keyframes alone, as other tools write
them, boxes, ellipses and polygons are interpolated as CVAT shows them. A mask holds for its own frame, because
CVAT has no tracks of masks: it exports each mask as a track of one frame, and reads nothing else.
"""

import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

from maskcast.data.label_formats.base import Export, FoundFrame, LabelFormat, Region, Size, checked_size
from maskcast.data.label_formats.cvat import (
    FILE,
    NO_AREA,
    SHAPES,
    add_attributes,
    left_out,
    mask_attributes,
    meta_element,
    number,
    object_of,
    parts,
    points_of,
    region_of,
    whole,
    write_settings,
    written,
)
from maskcast.data.label_formats.files import files_in
from maskcast.data.label_formats.names import clip_name
from maskcast.data.safe_xml import read_xml
from maskcast.errors import MaskcastError
from maskcast.progress import say

NUMBERS = {"box": ("xtl", "ytl", "xbr", "ybr", "rotation"), "ellipse": ("cx", "cy", "rx", "ry", "rotation")}


class CvatVideo(LabelFormat):
    """CVAT for video 1.1."""

    name = "cvat-video"
    files = (FILE, "*.xml")
    tracks = True
    scores = True
    whole_clips = True

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``<clip>/annotations.xml``, and ``labels.json``, CVAT's settings of the labels."""
        for clip, frames in export.clips.items():
            root = ET.Element("annotations")
            ET.SubElement(root, "version").text = "1.1"
            root.append(meta_element(clip, export, len(frames), "interpolation"))
            count = 0
            for t in frames:
                for order, region in parts(export.regions(clip, t)):
                    label = {"id": str(count), "label": region.class_name, "source": "auto"}
                    track = ET.SubElement(root, "track", label)
                    mask = mask_attributes(region.mask_HW)
                    for frame, outside in ((t, "0"), (t + 1, "1"))[: 2 if t + 1 < len(frames) else 1]:
                        state = {"frame": str(frame), "keyframe": "1", "outside": outside, "occluded": "0"}
                        add_attributes(
                            ET.SubElement(track, "mask", state | mask | {"z_order": str(order)}), region
                        )
                    count += 1
            place = folder / clip_name(clip)
            place.mkdir()
            written(root, place / FILE)
        write_settings(folder, export)

    def read(self, path: Path) -> Iterator[FoundFrame]:
        """Yields the frames of all tasks (see `LabelFormat.read`)."""
        for file in files_in(path, self.files, "CVAT"):
            yield from _read(file)


@dataclass(frozen=True)
class _Shown:
    """A shape of a track in one frame."""

    element: ET.Element
    label: str | None
    track: int
    z_order: int
    where: str


def _read(file: Path) -> Iterator[FoundFrame]:
    root = read_xml(file, "CVAT for video", "give what CVAT exported")
    task = next((found for tag in ("task", "job") if (found := root.find(f"meta/{tag}")) is not None), None)
    if root.tag != "annotations" or task is None or root.find("image") is not None:
        other = "; it has images: use --format cvat-images" if root.find("image") is not None else ""
        raise MaskcastError(
            f"{file}: no <annotations> of one task with tracks{other}; export `CVAT for video 1.1`"
        )
    first = _count(task, "start_frame", file, 0)
    last = _count(task, "stop_frame", file, _count(task, "size", file, 0) - 1)  # older files tell the size alone
    if last < first:
        raise MaskcastError(f"{file}: meta tells no frames (size, stop_frame); export the whole task from CVAT")
    size = _size(task, file)
    films = [Path((one.text or "").strip()).stem for one in root.findall("meta//source")]  # what was uploaded
    named = ((task.findtext("name") or "").strip(), file.parent.name, file.stem, *films)
    clips = [unquote(name) for name in named if name]
    shown: dict[int, list[_Shown]] = defaultdict(list)
    unusable: Counter[str] = Counter()
    ids: set[str | None] = set()
    for track in root.findall("track"):
        where = f"{file}: track {track.get('id')}"
        if track.get("id") in ids:
            raise MaskcastError(f"{where}: its id stands twice; give each track its own")
        ids.add(track.get("id"))
        unusable.update({one.tag for one in track if one.tag in NO_AREA})
        shapes = [one for one in track if one.tag in SHAPES]
        for frame, one in _every_frame(shapes, first, last, where):
            place = f"{where}: {one.tag} of frame {frame}"
            shown[frame].append(_Shown(one, track.get("label"), len(ids), whole(one, "z_order", place, 0), place))
    for frame in range(first, last + 1):
        layers = sorted(shown.get(frame, ()), key=lambda one: one.z_order)
        places = [(clip, frame) for clip in clips]
        objects = [object_of(one.element, one.label, one.where, one.track) for one in layers]
        yield FoundFrame(f"{file}: frame {frame}", places, size, objects, partial(_regions, layers))
    if unusable:
        say(left_out(unusable, file))


def _every_frame(
    shapes: Sequence[ET.Element], first: int, last: int, where: str
) -> Iterator[tuple[int, ET.Element]]:
    """Yields the shapes of a track frame by frame, with those between keyframes."""
    frames = [whole(one, "frame", where) for one in shapes]
    if any(after <= before for before, after in pairwise(frames)):
        raise MaskcastError(f"{where}: its frames must ascend, each once; export it again")
    if frames and not first <= frames[0] <= frames[-1] <= last:
        raise MaskcastError(
            f"{where}: has frames {frames[0]} to {frames[-1]}, the task {first} to {last}; mend it"
        )
    for n, (frame, one) in enumerate(zip(frames, shapes, strict=True)):
        if one.get("outside") == "1":
            continue
        yield frame, one
        if one.tag == "mask":
            continue
        if n + 1 < len(shapes):
            for between in range(frame + 1, frames[n + 1]):
                share = (between - frame) / (frames[n + 1] - frame)
                yield between, _between(one, shapes[n + 1], share, where)
        elif not (n == 0 and frame == last - 1):  # CVAT leaves out the end of a single shape there
            yield from ((later, one) for later in range(frame + 1, last + 1))


def _between(before: ET.Element, after: ET.Element, share: float, where: str) -> ET.Element:
    """Returns a shape between two keyframes."""
    if before.tag != after.tag:
        raise MaskcastError(
            f"{where}: changes from {before.tag} to {after.tag} between keyframes; list all frames"
        )
    made = ET.Element(before.tag, before.attrib)
    made.extend(before)
    if before.tag == "polygon":
        old, new = points_of(before, where), points_of(after, where)
        if len(old) != len(new):
            raise MaskcastError(
                f"{where}: polygons of {len(old)} and {len(new)} points cannot be interpolated; export from CVAT, "
                "which lists all frames"
            )
        made.set(
            "points",
            ";".join(f"{_mix(a, c, share)},{_mix(b, d, share)}" for (a, b), (c, d) in zip(old, new, strict=True)),
        )
        return made
    for key in NUMBERS[before.tag]:
        old_value, new_value = (
            number(one, key, where, 0.0 if key == "rotation" else None) for one in (before, after)
        )
        if key == "rotation":  # the shorter way round
            new_value = old_value + (new_value - old_value + 180) % 360 - 180
        made.set(key, str(_mix(old_value, new_value, share)))
    return made


def _mix(a: float, b: float, share: float) -> float:
    return a + share * (b - a)


def _count(task: ET.Element, key: str, file: Path, default: int) -> int:
    text = (task.findtext(key) or "").strip()
    if text and not (text.isdecimal() and len(text) < 7):
        raise MaskcastError(f"{file}: {key} of meta must be a number of frames, got {text!r}; mend it")
    return int(text) if text else default


def _size(task: ET.Element, file: Path) -> Size | None:
    original = task.find("original_size")
    if original is None:
        return None
    sides = [(original.findtext(key) or "").strip() for key in ("height", "width")]
    if not all(side.isdecimal() and len(side) < 7 for side in sides):
        raise MaskcastError(f"{file}: original_size of meta must be two integers, got {sides}; mend it")
    return checked_size(int(sides[0]), int(sides[1]), f"{file}: original_size")


def _regions(found: Sequence[_Shown], size: Size) -> Iterator[Region]:
    for one in found:
        yield region_of(one.element, one.label, size, one.where, one.track)
