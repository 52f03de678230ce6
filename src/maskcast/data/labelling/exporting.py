"""Exports masks of a clip store, and the frames that they belong to, in the label format of another tool.

Legend: T frames, H height, W width, C = 3 channels (RGB).
"""

import csv
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.images import Size, resize_masks, write_image
from maskcast.data.labelling.formats.base import IGNORED, Export, FrameId, LabelFormat, Region
from maskcast.data.labelling.formats.names import frame_name
from maskcast.data.labelling.video_frames import VideoFrames
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.progress import track
from maskcast.reading import is_small_integer, parsing, pluralize, read_text

FrameSelection = Mapping[str, Sequence[int]]  # frame indices by clip id
Places = dict[str, dict[int, FrameId]]  # clip id and frame index, by the clip and number that the files name


@dataclass(frozen=True)
class ExportReport:
    """Summary of an export.

    Attributes:
        clips: number of clips.
        frames: number of frames; one that several clips of a video share counts once.
        sizes: sizes of the frames, the most frequent first.
        hidden: number of hidden clips, which cannot be labelled and are left out.
    """

    clips: int
    frames: int
    sizes: Sequence[Size]
    hidden: int


def export_labels(
    folder: Path,
    form: LabelFormat,
    store: ClipStore,
    frames: FrameSelection | None,
    frame_store: ClipStore | None,
    raw_frames: Callable[[Clip], np.ndarray] | None = None,
) -> ExportReport:
    """Writes masks of a store into a folder.

    Frames are named by video and number in the video if the store has both, so that they are found again in clips
    that were cut differently; else, and in formats of whole clips and of objects, by clip and number in the clip.

    Args:
        folder: created here.
        form: label format.
        store: the masks of its chosen map are written.
        frames: which frames to write; None writes all frames with masks.
        frame_store: a store with the frames, which become ``images/<video>_<frame>.png``; None writes no images.
        raw_frames: returns the frames (T, H, W, C) of a clip of ``frame_store`` at their original size, to which
            masks are then resized; None writes both at the size of the clips.

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
    hidden = {clip_id for clip_id in clips if store.get(clip_id).kind == "hidden"}
    clips = {clip_id: chosen for clip_id, chosen in clips.items() if chosen and clip_id not in hidden}
    if hidden and not clips:
        raise MaskcastError(f"{store.root}: all clips to export are hidden and cannot be labelled; choose others")
    if not clips:
        raise MaskcastError(
            f"{store.root}: no clip has masks of map {label_map.name!r}; use a store that has them"
        )
    if form.whole_clips:
        clips = {clip_id: range(clips_with_masks[clip_id].num_frames) for clip_id in clips}
    places = _places(store, clips, by_video=not form.whole_clips and label_map.kind == "classes")
    sizes = dict.fromkeys(places, (store.height, store.width))
    folder.mkdir(parents=True)
    if frame_store is not None:
        sizes = _write_images(folder / "images", places, store, frame_store, raw_frames)
    export = Export(
        label_map.classes[1:],
        sizes,
        {name: list(found) for name, found in places.items()},
        label_map.kind == "instances",
        lambda name, t: regions_of(store, *places[name][t], sizes[name]),
    )
    form.write(folder, export)
    common = [size for size, _ in Counter(sizes.values()).most_common()]
    return ExportReport(len(clips), sum(map(len, places.values())), common, len(hidden))


def _places(store: ClipStore, clips: FrameSelection, *, by_video: bool) -> Places:
    """Returns the frames to write, each once: clip and index, by the clip and number that the files name.

    Of clips that show the same frame, one that has a label of it is taken, else the first.
    """
    places: Places = defaultdict(dict)
    videos = VideoFrames(store) if by_video else None
    labelled = {clip_id: {*labelled_frames(store, store.get(clip_id))} for clip_id in clips} if by_video else {}
    for clip_id, frames in clips.items():
        clip = store.get(clip_id)
        video, numbers = None if videos is None else videos.name_of(clip), clip.video_frames
        for t in frames:
            if video is None or numbers is None:
                places[clip_id][t] = clip_id, t
                continue
            taken = places[video].get(numbers[t])
            if taken is None or (t in labelled[clip_id] and taken[1] not in labelled[taken[0]]):
                places[video][numbers[t]] = clip_id, t
    return {name: dict(sorted(found.items())) for name, found in places.items()}


def labelled_or_all(store: ClipStore, clip_id: str) -> Sequence[int]:
    """Returns the frames of a clip that have labels, or all frames if the masks are generated."""
    clip = store.get(clip_id)
    return labelled_frames(store, clip) if clip.kind == "labelled" else range(clip.num_frames)


def regions_of(store: ClipStore, clip_id: str, t: int, size: Size) -> list[Region]:
    """Returns a region for each class, or object, of a frame at a size, and one for its pixels without label."""
    clip, frame, label_map = store.get(clip_id), slice(t, t + 1), store.label_map
    (mask_HW,) = resize_masks(store.masks(clip, frame), *size)
    confidence_HW = None
    if store.has_confidence(clip):
        (confidence_HW,) = resize_masks(store.confidence(clip, frame), *size)
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


def _write_images(
    folder: Path,
    places: Places,
    store: ClipStore,
    frame_store: ClipStore,
    raw_frames: Callable[[Clip], np.ndarray] | None,
) -> dict[str, Size]:
    """Writes the images clip by clip; returns the size of each clip that the files name."""
    if (frame_store.height, frame_store.width) != (store.height, store.width):
        sizes = f"{frame_store.width}x{frame_store.height}, its masks {store.width}x{store.height}"
        raise MaskcastError(
            f"{frame_store.root}: frames are {sizes}; use the clips that the masks were generated from"
        )
    folder.mkdir()
    names_of: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
    for name, found in places.items():
        for number, (clip_id, t) in found.items():
            names_of[clip_id].append((name, number, t))
    written: dict[str, Size] = {}
    for clip_id, names in track(list(names_of.items()), "writing frames"):
        clip = frame_store.get(clip_id)
        if clip.num_frames <= (last := max(t for _, _, t in names)):
            raise MaskcastError(
                f"{frame_store.root}: clip {clip_id!r} has {pluralize(clip.num_frames, 'frame')}, not {last + 1}"
            )
        frames_THWC = frame_store.frames(clip) if raw_frames is None else raw_frames(clip)
        height, width = frames_THWC.shape[1:3]
        for name, number, t in names:
            if written.setdefault(name, (height, width)) != (height, width):
                raise MaskcastError(
                    f"{frame_store.root}: frames of {name!r} are {width}x{height} in clip {clip_id!r}, "
                    f"{written[name][1]}x{written[name][0]} in another; export without --raw"
                )
            write_image(folder / frame_name(name, number), frames_THWC[t][..., ::-1])
    return written
