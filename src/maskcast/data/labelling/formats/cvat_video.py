"""CVAT for video 1.1: one XML per task of one clip, with an element per track; frames have only numbers.

CVAT writes all frames of a track, keyframes or not. Other tools write only keyframes; between these, boxes,
ellipses and polygons are interpolated as in CVAT's player. A mask is valid for its own frame only, because CVAT
has no tracks of masks: it exports each mask as a track of one frame, and can import nothing else.
"""

import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from maskcast.data.labelling.formats import cvat
from maskcast.data.labelling.formats.base import Export, ImportedFrame
from maskcast.data.labelling.formats.cvat_shapes import (
    NO_AREA,
    SHAPES,
    TRACKS,
    Shape,
    add_mask,
    integer,
    mask_attributes,
    number,
    points_of,
)
from maskcast.data.labelling.formats.names import clip_name
from maskcast.data.labelling.formats.shapes import report_without_area
from maskcast.data.safe_xml import read_xml
from maskcast.errors import MaskcastError

NUMBERS = {"box": ("xtl", "ytl", "xbr", "ybr", "rotation"), "ellipse": ("cx", "cy", "rx", "ry", "rotation")}


class CvatVideo(cvat.Cvat):
    """CVAT for video 1.1."""

    name = "cvat-video"
    whole_clips = True

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``<clip>/annotations.xml``, and ``labels.json`` with CVAT's label settings."""
        for clip, frames in export.clips.items():
            root = cvat.task_document(clip, export, export.sizes[clip], len(frames), "interpolation")
            count = 0
            for t in frames:
                for region, mask in mask_attributes(export.regions(clip, t)):
                    label = {"id": str(count), "label": region.class_name, "source": "auto"}
                    track = ET.SubElement(root, "track", label)
                    for frame, outside in ((t, "0"), (t + 1, "1"))[: 2 if t + 1 < len(frames) else 1]:
                        state = {"frame": str(frame), "keyframe": "1", "outside": outside, "occluded": "0"}
                        add_mask(track, region, state | mask)
                    count += 1
            place = folder / clip_name(clip)
            place.mkdir()
            cvat.write_document(root, place / cvat.FILE)
        cvat.write_settings(folder, export)

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the frames of all tasks of a file (see `LabelFormat.read`)."""
        return _read(file)


def _read(file: Path) -> Iterator[ImportedFrame]:
    root = read_xml(file, "CVAT for video", "give what CVAT exported")
    tasks, class_list = cvat.tasks_of(root, file), cvat.class_list_of(root, file)
    if root.tag != "annotations" or not tasks or root.find("image") is not None:
        hint = "; it has images: use --format cvat-images" if root.find("image") is not None else ""
        raise MaskcastError(f"{file}: no <annotations> of tasks with tracks{hint}; export `CVAT for video 1.1`")
    shapes_by_frame: dict[tuple[str | None, int], list[Shape]] = defaultdict(list)
    without_area: Counter[str] = Counter()
    frames_left_out: set[tuple[str | None, int]] = set()
    ids: set[str | None] = set()
    by_id = {task.id: task for task in tasks}
    for track in root.findall("track"):
        where = f"{file}: track {track.get('id')}"
        if track.get("id") in ids:
            raise MaskcastError(f"{where}: its id occurs twice; make it unique")
        ids.add(track.get("id"))
        task = tasks[0] if tasks[0].id is None else by_id.get(track.get("task_id"))
        if task is None:
            raise MaskcastError(
                f"{where}: is of task {track.get('task_id')}, which is missing in meta; export it again"
            )
        left_out = [element for element in track if element.tag in NO_AREA and element.get("outside") != "1"]
        without_area.update({element.tag for element in left_out})
        frames_left_out |= {(task.id, integer(element, "frame", where)) for element in left_out}
        shapes = [element for element in track if element.tag in SHAPES]
        track_number = task.frames.start * TRACKS + len(ids)  # keeps tracks of different jobs apart
        for frame, element in _every_frame(shapes, task, where):
            shape_name = f"{where}: {element.tag} of frame {frame}"
            shapes_by_frame[task.id, frame].append(Shape(element, track.get("label"), shape_name, track_number))
    for task in tasks:
        if not task.frames:
            raise MaskcastError(
                f"{file}: meta has no frame count (size, stop_frame); export the whole task from CVAT"
            )
        for frame_in_task in task.frames:
            frame = frame_in_task + task.offset
            shapes_here = shapes_by_frame.get((task.id, frame), ())
            frame_ids, names = task.frame_ids(frame), cvat.names_of(f"frame_{frame:06d}", task.subset)
            yield cvat.frame_of(
                f"{file}: frame {frame}",
                frame_ids,
                task.size,
                shapes_here,
                names,
                ordered=True,
                class_list=class_list,
                left_out=(task.id, frame) in frames_left_out,
            )
    report_without_area(file, without_area)


def _every_frame(shapes: Sequence[ET.Element], task: cvat.Task, where: str) -> Iterator[tuple[int, ET.Element]]:
    """Yields the shapes of a track frame by frame, interpolated between keyframes."""
    numbers = [integer(element, "frame", where) for element in shapes]
    if any(after <= before for before, after in pairwise(numbers)):
        raise MaskcastError(f"{where}: its frame numbers must increase; export it again")
    step, last = task.frames.step, task.offset + (task.frames[-1] if task.frames else -1)
    for n, (frame, element) in enumerate(zip(numbers, shapes, strict=True)):
        if element.get("outside") == "1":  # older files end a shape after the last frame
            continue
        if frame - task.offset not in task.frames:
            task_frames = f"{task.frames.start + task.offset} to {last}" + (f" by {step}" if step > 1 else "")
            raise MaskcastError(
                f"{where}: has frames {numbers[0]} to {numbers[-1]}, the task {task_frames}; fix it"
            )
        yield frame, element
        if element.tag == "mask":
            continue
        if n + 1 < len(shapes):
            for between in range(frame + step, numbers[n + 1], step):
                fraction = (between - frame) / (numbers[n + 1] - frame)
                yield between, _interpolate(element, shapes[n + 1], fraction, where)
        elif n or (task.id is None and frame + step < task.frames.stop - 1):  # else CVAT may omit the end
            yield from ((later, element) for later in range(frame + step, last + 1, step))


def _interpolate(before: ET.Element, after: ET.Element, fraction: float, where: str) -> ET.Element:
    """Returns the interpolated shape between two keyframes."""
    if before.tag != after.tag:
        raise MaskcastError(
            f"{where}: changes from {before.tag} to {after.tag} between keyframes; list all frames"
        )
    result = ET.Element(before.tag, before.attrib)
    result.extend(before)
    if before.tag == "polygon":
        old, new = points_of(before, where), points_of(after, where)
        if len(old) != len(new):
            raise MaskcastError(
                f"{where}: polygons of {len(old)} and {len(new)} points cannot be interpolated; export from CVAT, "
                "which lists all frames"
            )
        result.set(
            "points",
            ";".join(
                f"{_lerp(a, c, fraction)},{_lerp(b, d, fraction)}" for (a, b), (c, d) in zip(old, new, strict=True)
            ),
        )
        return result
    for key in NUMBERS[before.tag]:
        old_value, new_value = (
            number(one, key, where, 0.0 if key == "rotation" else None) for one in (before, after)
        )
        if key == "rotation":  # rotate the shorter way round
            new_value = old_value + (new_value - old_value + 180) % 360 - 180
        result.set(key, str(_lerp(old_value, new_value, fraction)))
    return result


def _lerp(a: float, b: float, fraction: float) -> float:
    return a + fraction * (b - a)
