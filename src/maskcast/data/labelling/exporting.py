"""Exports masks of a clip store, and the frames that they belong to, in the label format of another tool.

Legend: H height, W width.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.images import write_image
from maskcast.data.labelling.formats.base import IGNORED, Export, LabelFormat, Region
from maskcast.data.labelling.formats.names import frame_name
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.progress import track
from maskcast.reading import is_small_integer, parsing, pluralize, read_text

FrameSelection = Mapping[str, Sequence[int]]  # frame indices by clip id


def export_labels(
    folder: Path, form: LabelFormat, store: ClipStore, frames: FrameSelection | None, frame_store: ClipStore | None
) -> tuple[int, int]:
    """Writes masks of a store into a folder; returns the number of clips and the number of frames.

    Args:
        folder: created here.
        form: label format.
        store: the masks of its chosen map are written.
        frames: which frames to write; None writes all frames with masks.
        frame_store: a store with the frames, which become ``images/<clip>_<frame>.png``; None writes no images.

    Raises:
        MaskcastError: there is nothing to write, or the format cannot represent it.
    """
    label_map = store.label_map
    if label_map.kind == "alpha":
        raise MaskcastError(
            f"{store.root}: map {label_map.name!r} is an alpha matte, which no label format supports"
        )
    if IGNORED in label_map.classes:
        raise MaskcastError(
            f"{store.root}: map {label_map.name!r} has a class {IGNORED!r}, which in label files means "
            "pixels without a label; rename the class"
        )
    if frames is not None and form.whole_clips:
        raise MaskcastError(
            f"--format {form.name}: writes whole clips and does not support --frames; use another format"
        )
    clips_with_masks = {clip.id: clip for clip in store.clips if store.has_masks(clip)}
    if frames is None:
        clips = {clip_id: labelled_or_all(store, clip_id) for clip_id in clips_with_masks}
    else:
        clips = {clip_id: _check_frames(store, clip_id, sorted(chosen)) for clip_id, chosen in frames.items()}
    clips = {clip_id: chosen for clip_id, chosen in clips.items() if chosen}
    if not clips:
        raise MaskcastError(
            f"{store.root}: no clip has masks of map {label_map.name!r}; use a store that has them"
        )
    if form.whole_clips:
        clips = {clip_id: range(clips_with_masks[clip_id].num_frames) for clip_id in clips}
    folder.mkdir(parents=True)
    if frame_store is not None:
        _write_images(folder / "images", clips, store, frame_store)
    export = Export(
        label_map.classes[1:],
        (store.height, store.width),
        clips,
        label_map.kind == "instances",
        lambda clip_id, t: regions_of(store, clip_id, t),
    )
    form.write(folder, export)
    return len(clips), sum(map(len, clips.values()))


def labelled_or_all(store: ClipStore, clip_id: str) -> Sequence[int]:
    """Returns the frames of a clip that have labels, or all frames if the masks are generated."""
    clip = store.get(clip_id)
    return labelled_frames(store, clip) if clip.kind == "labelled" else range(clip.num_frames)


def regions_of(store: ClipStore, clip_id: str, t: int) -> list[Region]:
    """Returns a region for each class, or object, of a frame, and one for its pixels without label."""
    clip, frame, label_map = store.get(clip_id), slice(t, t + 1), store.label_map
    (mask_HW,) = store.masks(clip, frame)
    confidence_HW = store.confidence(clip, frame)[0] if store.has_confidence(clip) else None
    objects = clip.objects.get(label_map.name, {})
    regions = []
    for value in np.unique(mask_HW).tolist():
        if value == 0:
            continue
        region_HW = mask_HW == value
        score = None if confidence_HW is None else float(confidence_HW[region_HW].mean()) / 255
        if label_map.kind == "instances":
            regions.append(Region(label_map.classes[objects[value]], region_HW, value, score))
        elif value == IGNORE:
            regions.append(Region(IGNORED, region_HW))
        else:
            regions.append(Region(label_map.classes[value], region_HW, None, score))
    return regions


def read_frames_list(path: Path) -> dict[str, list[int]]:
    """Returns the frames of a CSV with the columns ``clip`` and ``frame``, such as `labels suggest` writes.

    Raises:
        MaskcastError: the file is no such CSV.
    """
    frames: dict[str, list[int]] = {}
    text = read_text(path, "list of frames", "give a CSV")
    with parsing(path, "a list of frames", "give a CSV"):
        rows = list(csv.DictReader(io.StringIO(text)))
    for line, row in enumerate(rows, 2):
        clip, frame = row.get("clip"), (row.get("frame") or "").strip()
        if not clip or not is_small_integer(frame):
            raise MaskcastError(f"{path}: line {line}: needs the columns clip and frame (a number from 0); fix it")
        if int(frame) in frames.setdefault(clip, []):
            raise MaskcastError(f"{path}: line {line}: frame {frame} of {clip!r} is listed twice; remove one line")
        frames[clip].append(int(frame))
    if not frames:
        raise MaskcastError(f"{path}: lists no frames; write the header clip,frame and one line per frame")
    return frames


def _check_frames(store: ClipStore, clip_id: str, frames: Sequence[int]) -> Sequence[int]:
    """Returns the given frames of a clip, after a check that the store has masks for all of them."""
    clip = store.get(clip_id)
    if not store.has_masks(clip):
        raise MaskcastError(f"{store.root}: clip {clip_id!r} has no masks of map {store.label_map.name!r}")
    if frames[-1] >= clip.num_frames:
        raise MaskcastError(
            f"{store.root}: clip {clip_id!r} has frames 0 to {clip.num_frames - 1}, not {frames[-1]}"
        )
    return frames


def _write_images(folder: Path, clips: FrameSelection, store: ClipStore, frame_store: ClipStore) -> None:
    if (frame_store.height, frame_store.width) != (store.height, store.width):
        sizes = f"{frame_store.width}x{frame_store.height}, its masks {store.width}x{store.height}"
        raise MaskcastError(
            f"{frame_store.root}: frames are {sizes}; use the clips that the masks were generated from"
        )
    folder.mkdir()
    for clip_id, frame_indices in track(list(clips.items()), "writing frames"):
        frames = frame_store.frames(frame_store.get(clip_id))
        if len(frames) <= frame_indices[-1]:
            raise MaskcastError(
                f"{frame_store.root}: clip {clip_id!r} has {pluralize(len(frames), 'frame')}, "
                f"not {frame_indices[-1] + 1}"
            )
        for t in frame_indices:
            write_image(folder / frame_name(clip_id, t), frames[t][..., ::-1])
