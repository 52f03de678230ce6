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
from maskcast.data.labelling.formats.base import Export, FoundFrame
from maskcast.data.labelling.formats.cvat_shapes import (
    NO_AREA,
    SHAPES,
    TRACKS,
    Shape,
    add_mask,
    number,
    points_of,
    whole,
    written_masks,
)
from maskcast.data.labelling.formats.names import clip_name
from maskcast.data.labelling.formats.shapes import say_without_area
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
            root = cvat.document(clip, export, len(frames), "interpolation")
            count = 0
            for t in frames:
                for region, mask in written_masks(export.regions(clip, t)):
                    label = {"id": str(count), "label": region.class_name, "source": "auto"}
                    track = ET.SubElement(root, "track", label)
                    for frame, outside in ((t, "0"), (t + 1, "1"))[: 2 if t + 1 < len(frames) else 1]:
                        state = {"frame": str(frame), "keyframe": "1", "outside": outside, "occluded": "0"}
                        add_mask(track, region, state | mask)
                    count += 1
            place = folder / clip_name(clip)
            place.mkdir()
            cvat.written(root, place / cvat.FILE)
        cvat.write_settings(folder, export)

    def read_file(self, file: Path) -> Iterator[FoundFrame]:
        """Yields the frames of all tasks of a file (see `LabelFormat.read`)."""
        return _read(file)


def _read(file: Path) -> Iterator[FoundFrame]:
    root = read_xml(file, "CVAT for video", "give what CVAT exported")
    tasks = cvat.tasks_of(root, file)
    if root.tag != "annotations" or not tasks or root.find("image") is not None:
        other = "; it has images: use --format cvat-images" if root.find("image") is not None else ""
        raise MaskcastError(f"{file}: no <annotations> of tasks with tracks{other}; export `CVAT for video 1.1`")
    shown: dict[tuple[str | None, int], list[Shape]] = defaultdict(list)
    unusable: Counter[str] = Counter()
    ids: set[str | None] = set()
    by_id = {task.id: task for task in tasks}
    for track in root.findall("track"):
        where = f"{file}: track {track.get('id')}"
        if track.get("id") in ids:
            raise MaskcastError(f"{where}: its id stands twice; give each track its own")
        ids.add(track.get("id"))
        task = tasks[0] if tasks[0].id is None else by_id.get(track.get("task_id"))
        if task is None:
            raise MaskcastError(f"{where}: is of task {track.get('task_id')}, which meta lacks; export it again")
        unusable.update({one.tag for one in track if one.tag in NO_AREA})
        shapes = [one for one in track if one.tag in SHAPES]
        track_number = task.frames.start * TRACKS + len(ids)  # keeps tracks of different jobs apart
        for frame, one in _every_frame(shapes, task, where):
            place = f"{where}: {one.tag} of frame {frame}"
            shown[task.id, frame].append(Shape(one, track.get("label"), place, track_number))
    for task in tasks:
        if not task.frames:
            raise MaskcastError(
                f"{file}: meta tells no frames (size, stop_frame); export the whole task from CVAT"
            )
        for own in task.frames:
            frame = own + task.before
            shapes_here = shown.get((task.id, frame), ())
            places, names = task.places(frame), cvat.names_of(f"frame_{frame:06d}", task.subset)
            yield cvat.frame_of(f"{file}: frame {frame}", places, task.size, shapes_here, names, ordered=True)
    say_without_area(file, unusable)


def _every_frame(shapes: Sequence[ET.Element], task: cvat.Task, where: str) -> Iterator[tuple[int, ET.Element]]:
    """Yields the shapes of a track frame by frame, interpolated between keyframes."""
    numbers = [whole(one, "frame", where) for one in shapes]
    if any(after <= before for before, after in pairwise(numbers)):
        raise MaskcastError(f"{where}: its frames must ascend, each once; export it again")
    step, last = task.frames.step, task.before + (task.frames[-1] if task.frames else -1)
    for n, (frame, one) in enumerate(zip(numbers, shapes, strict=True)):
        if one.get("outside") == "1":  # older files end a shape after the last frame
            continue
        if frame - task.before not in task.frames:
            have = f"{task.frames.start + task.before} to {last}" + (f" by {step}" if step > 1 else "")
            raise MaskcastError(f"{where}: has frames {numbers[0]} to {numbers[-1]}, the task {have}; fix it")
        yield frame, one
        if one.tag == "mask":
            continue
        if n + 1 < len(shapes):
            for between in range(frame + step, numbers[n + 1], step):
                share = (between - frame) / (numbers[n + 1] - frame)
                yield between, _between(one, shapes[n + 1], share, where)
        elif n or (task.id is None and frame + step < task.frames.stop - 1):  # else CVAT may omit the end
            yield from ((later, one) for later in range(frame + step, last + 1, step))


def _between(before: ET.Element, after: ET.Element, share: float, where: str) -> ET.Element:
    """Returns the interpolated shape between two keyframes."""
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
        if key == "rotation":  # rotate the shorter way round
            new_value = old_value + (new_value - old_value + 180) % 360 - 180
        made.set(key, str(_mix(old_value, new_value, share)))
    return made


def _mix(a: float, b: float, share: float) -> float:
    return a + share * (b - a)
