"""CLEVRER's official release: `video_<id>.mp4`, and `annotation_<id>.json`, from which masks are rendered."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from maskcast.data.footage import ReadVideo
from maskcast.data.images import Size
from maskcast.data.sources.base import Arrays, Listing, RawClip, SourceConfig
from maskcast.data.sources.cutting import span, windows_in
from maskcast.data.video_files.frames import read_resized_video
from maskcast.data.video_files.index import index_video
from maskcast.data.video_files.one_pass import VideoWindow
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.labels import KIND_OF_SPLIT, MASK, Split, single_map
from maskcast.params import ByName
from maskcast.reading import parsing, pluralize, read_json
from maskcast.simulator.camera import (
    ATTRIBUTES,
    CLASSES,
    CLEVRER_CAMERA,
    COLORS,
    MATERIALS,
    SHAPES,
    Motion,
    class_id,
    euler_rotations,
    paint_masks,
)

FRAME_RATE = 25.0  # frames per second of the release's videos

OfficialSplit = Literal["train", "validation", "test"]
VideoId = Annotated[int, Field(ge=0, le=99_999)]


class ClevrerSource(SourceConfig):
    """Windows of CLEVRER's videos.

    A video with annotation gives labelled clips, an annotation without video labelled clips of masks only, a video
    without annotation unlabelled clips, or hidden ones if its split is `test`. Clips of the split `hidden` are the
    first `context` frames without masks.
    """

    things: ClassVar[bool] = True  # all classes are
    splits_come_from: ClassVar[str] = "source.splits, source.id_splits and source.ids"
    layout: Literal["clevrer"] = "clevrer"
    frames: int = Field(default=22, ge=1)
    """Number of frames of a clip."""
    context: int = Field(default=11, ge=1)
    """Number of frames of a hidden clip."""
    stride: int = Field(default=5, ge=1)
    """Distance between consecutive frames of a clip, in frames of the video."""
    window_step: int | None = Field(default=None, ge=1)
    """Distance between the first frames of consecutive clips, in frames of the video; null cuts one clip from each
    video, at its start."""
    splits: ByName[OfficialSplit, Split] = Field(default={"train": "train", "validation": "val", "test": "hidden"})
    """The split that the clips of each official split go to."""
    id_splits: ByName[VideoId, Split] = Field(default={})
    """The split of individual videos, which takes precedence over `splits`."""
    ids: tuple[VideoId, ...] | None = None
    """Ids of the videos to use; null uses all."""
    attributes: bool = False
    """Record the shape, material and color of every class, so that a masker learns classes by their attributes."""

    def listing(self, raw: Path, *, height: int | None, width: int | None, seed: int) -> Listing:
        """Lists the windows of all videos and annotations (see `SourceConfig.listing`)."""
        size = None if height is None or width is None else (height, width)
        rows, columns = size or (CLEVRER_CAMERA.height, CLEVRER_CAMERA.width)
        listing = Listing(
            [],
            single_map(CLASSES, things=self.things, attributes=ATTRIBUTES if self.attributes else None),
            meta={"camera": CLEVRER_CAMERA.scaled(rows, columns).to_meta()},
        )
        videos = _find(raw, "video", "mp4", listing)
        annotations = _find(raw, "annotation", "json", listing)
        found = sorted(videos.keys() | annotations.keys())
        if not found:
            raise MaskcastError(
                f"{raw}: contains no video_<id>.mp4 and no annotation_<id>.json; fix the path or layout"
            )
        unknown = sorted({*(self.ids or ()), *self.id_splits} - set(found))
        if unknown:
            raise MaskcastError(f"{raw}: video {unknown[0]:05d} not found; fix source.ids and source.id_splits")
        for number in found if self.ids is None else sorted(set(self.ids)):
            video, annotation = videos.get(number), annotations.get(number)
            split = self._split(number, video, annotation)
            try:
                listing.add(*self._windows(number, split, video, annotation, size))
            except MaskcastError as error:
                listing.skipped.append((f"video_{number:05d}", str(error)))
        return listing

    def _split(self, number: int, video: Path | None, annotation: Path | None) -> Split:
        split = self.id_splits.get(number)
        if split is None:
            split = self.splits.get(_official_split(number, video or annotation), "unlabeled")
            if annotation or split == "hidden":
                return split
            return "hidden" if split == "test" else "unlabeled"
        if annotation is None and KIND_OF_SPLIT[split] == "labelled":
            raise MaskcastError(
                f"source.id_splits: video {number} has no annotation, its split must be unlabeled or hidden"
            )
        return split

    def _windows(
        self, number: int, split: Split, video: Path | None, annotation: Path | None, size: Size | None
    ) -> Iterator[RawClip]:
        kind = KIND_OF_SPLIT[split]
        if kind != "labelled":
            annotation = None
        if video is None and annotation is None:
            raise MaskcastError(f"video_{number:05d}.mp4 is missing, and clips of split {split} need frames")
        length = self.context if kind == "hidden" else self.frames
        covered = span(length, self.stride)
        windows, index = [range(0, covered, self.stride)], None
        if self.window_step is not None:
            index = index_video(video) if video else None
            total = index.num_frames if index else len(read_motion(annotation).locations)
            windows = windows_in(total, length, self.stride, self.window_step)
            if not windows:
                raise MaskcastError(
                    f"{video or annotation}: has {pluralize(total, 'frame')}, a window needs {covered}"
                )
        for window in windows:
            name = f"clevrer_{number:05d}_s{window.start:03d}"
            load = partial(load_window, video, annotation, window, size)
            meta: dict[str, Any] = {"video": number, "start": window.start, "stride": self.stride}
            meta |= {"frame_rate": round(FRAME_RATE / self.stride, 3), "video_frames": list(window)}
            in_video = VideoWindow(video, window, index) if video and index else None
            yield RawClip(name, split, kind, load, meta, video=in_video)


def _find(raw: Path, kind: str, ending: str, listing: Listing) -> dict[int, Path]:
    """Finds the files `<kind>_<id>.<ending>`, by id; if two have the same id, the first is used."""
    found: dict[int, Path] = {}
    for path in list_files(raw):
        match = re.fullmatch(rf"{kind}_(\d+)\.(\w+)", path.name, re.IGNORECASE)
        if not match:
            continue
        number = int(match[1])
        if match[2].lower() != ending:
            listing.skipped.append((str(path.relative_to(raw)), f"ends in .{match[2]}, not in .{ending}"))
        elif number in found:
            listing.skipped.append(
                (str(path.relative_to(raw)), f"the same id as {found[number].relative_to(raw)}")
            )
        else:
            found[number] = path
    return found


def _official_split(number: int, path: Path | None) -> OfficialSplit:
    """Returns the official split from the folder's name (`video_train`), else from the id."""
    for part in path.parts[::-1] if path else ():
        match = re.fullmatch(r"(?:video|annotation)_(train|validation|test)", part)
        if match:
            return match[1]  # type: ignore[return-value]
    return "train" if number < 10_000 else "validation" if number < 15_000 else "test"


def load_window(
    video: Path | None,
    annotation: Path | None,
    window: range,
    size: Size | None,
    read_video: ReadVideo = read_resized_video,
) -> Arrays:
    """Reads one window.

    Args:
        video: mp4 file, or None.
        annotation: JSON file, or None.
        window: frame numbers in the video.
        size: rows and columns of the result; None keeps the size of the video.
        read_video: reads frames of the video.

    Raises:
        MaskcastError: if a file cannot be read or lacks a frame.
    """
    frames = None if video is None else read_video(video, window, size)[0]
    if annotation is None:
        return Arrays(frames)
    motion = read_motion(annotation)
    if window[-1] >= len(motion.locations):
        raise MaskcastError(
            f"{annotation}: motion_trajectory has {pluralize(len(motion.locations), 'frame')} where "
            f"{window[-1] + 1} are needed; copy the file again from its origin"
        )
    rows, columns = size or (
        (CLEVRER_CAMERA.height, CLEVRER_CAMERA.width) if frames is None else frames.shape[1:3]
    )
    return Arrays(frames, {MASK: paint_masks(motion[np.array(window)], rows, columns)})


@lru_cache(maxsize=4)
def read_motion(annotation: Path) -> Motion:
    """Reads the class, location and rotation of the objects of an annotation, for each frame.

    Raises:
        MaskcastError: if the file is no CLEVRER annotation: broken JSON, an unknown colour, a missing frame.
    """
    remedy = "copy it again"
    content = read_json(annotation, "annotation", remedy)
    with parsing(annotation, "a CLEVRER annotation", remedy):
        objects: list[dict[str, Any]] = sorted(content["object_property"], key=lambda item: item["object_id"])
        trajectory: Sequence[dict[str, Any]] = content["motion_trajectory"]
        column = {item["object_id"]: index for index, item in enumerate(objects)}
        class_ids = np.array([_class_of(annotation, item) for item in objects], np.uint8)
        locations = np.full((len(trajectory), len(objects), 3), np.nan)
        angles = np.zeros_like(locations)
        if sorted(frame["frame_id"] for frame in trajectory) != list(range(len(trajectory))):
            raise MaskcastError(
                f"{annotation}: motion_trajectory has missing frames; copy the file again from its origin"
            )
        for frame in trajectory:
            for item in frame["objects"]:
                locations[frame["frame_id"], column[item["object_id"]]] = item["location"]
                angles[frame["frame_id"], column[item["object_id"]]] = item["orientation"]
    return Motion(class_ids, locations, euler_rotations(angles))


def _class_of(annotation: Path, item: dict[str, Any]) -> int:
    for key, allowed in (("shape", SHAPES), ("material", MATERIALS), ("color", COLORS)):
        if item[key] not in allowed:
            raise MaskcastError(
                f"{annotation}: {key} {item[key]!r} is not supported; allowed: {', '.join(allowed)}"
            )
    return class_id(item["shape"], item["material"], item["color"])
