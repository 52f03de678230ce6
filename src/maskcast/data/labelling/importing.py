"""Imports labels of another tool into the clips that they belong to.

A frame that is not listed in the file has no label, which is not the same as background: losses and metrics ignore
its pixels. A frame that is listed without any region is background or unlabelled, as the user chooses.

Legend: T frames, H height, W width.
"""

import math
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard

from maskcast.data.archives.unpack import is_archive, unpack
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.images import resize_masks
from maskcast.data.labelling.formats.base import (
    MAX_INSTANCE_ID,
    Empty,
    FrameId,
    ImportedFrame,
    LabelFormat,
    Size,
    instance_ids,
)
from maskcast.data.labelling.formats.class_names import ClassNames
from maskcast.data.labelling.formats.names import FRAME_RULE
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.data.labelling.video_frames import VideoFrames
from maskcast.data.shared_frames import TRAINING_SPLITS
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.reading import parsing, pluralize

ROUNDING = 4  # pixels that a side of clips or labels may be rounded by: `init` takes multiples of 8
DEFAULT_SPLIT = "train"  # of clips that had no labels
MAX_DISTORTION = 0.1  # of the aspect ratio, relative: rounding of smaller frames is not told from cropping


@dataclass
class ImportReport:
    """Summary of an import.

    Attributes:
        clips: number of clips with new labels.
        frames: number of frames that the file labels.
        repeated: how many more frames of clips have these labels, because clips of a video overlap.
        empty: how many of ``frames`` are listed without any region.
        unlabelled: number of frames that are listed without any region and stay unlabelled.
        unmatched: names of frames that belong to no clip of the store.
        unused_renames: messages about renamed classes that no labelled frame has.
        followed: clips that had no labels and join the split of their video's labels, with this split.
        moved: clips without labels that leave ``unlabeled`` for the split of new labels of their video.
        trained: clips that are trained on, of a video with new labels of which some labels are scored.
    """

    clips: int = 0
    frames: int = 0
    repeated: int = 0
    empty: int = 0
    unlabelled: int = 0
    unmatched: list[str] = field(default_factory=list)
    unused_renames: list[str] = field(default_factory=list)
    followed: dict[str, str] = field(default_factory=dict)
    moved: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)


def import_labels(
    root: Path,
    form: LabelFormat,
    path: Path,
    store: ClipStore,
    *,
    rename: Mapping[str, str],
    empty: Empty,
    split: str | None,
    first: int | None = None,
) -> ImportReport:
    """Writes a store with the clips of another store and the labels of a file.

    A frame is labelled in all clips of its video that contain it. Labels of another size are resized.

    Args:
        root: folder to write.
        form: format of the file.
        path: file, folder or archive of labels.
        store: the clips; the labels go to its chosen map.
        rename: class name in the store by class name in the file.
        empty: what a frame is if it is listed without any region.
        split: split of clips that had no labels before; None for that of the labels of their video, if they are
            all of one, else ``train``.
        first: number of a clip's first frame, for an ambiguous format; None to find it from the file.

    Raises:
        MaskcastError: the file is damaged or contradicts the store, or none of its frames is in the store.
    """
    if store.label_map.kind == "alpha":
        raise MaskcastError(
            f"{store.root}: map {store.label_map.name!r} is an alpha matte, which no label format supports"
        )
    names, report = ClassNames(store.classes, form, rename, "--rename '{}={}'"), ImportReport()
    videos, new = VideoFrames(store), _NewLabels(store, names, form.duplicate_remedy)
    with _unpacked(path) as opened, parsing(path, f"labels of {form.name}", "export them again"):
        try:
            if form.has_ambiguous_start:
                lengths = {clip.id: clip.num_frames for clip in store.clips}
                form.detect_first_frame(opened, lengths, videos.lengths(), first)
            for frame in form.read(opened):
                match = _match_frame(frame, store, videos)
                if match is None:
                    report.unmatched.append(frame.where)
                elif frame.empty and empty == "unlabelled":
                    report.unlabelled += 1
                else:
                    report.frames += 1
                    report.empty += frame.empty
                    new.add(frame, match)
        except MaskcastError as error:  # for an archive it names the temporary folder
            raise MaskcastError(str(error).replace(str(opened), str(path))) from None
        report.unmatched = [where.replace(str(opened), str(path)) for where in report.unmatched]
    if not new.clips:
        raise _no_frames_error(path, store, report.unmatched)
    if form.covers_all_frames and empty == "background":
        filled = new.fill_background()
        report.frames, report.empty = report.frames + filled, report.empty + filled
    report.unused_renames = list(names.unused_renames())
    report.repeated = new.num_frames - report.frames
    report.clips = len(new.clips)
    labels = {clip_id: clip.finish() for clip_id, clip in new.clips.items()}
    write_relabelled(root, store, labels, _new_splits(store, labels, split, report))
    return report


def _no_frames_error(path: Path, store: ClipStore, unmatched: Sequence[str]) -> MaskcastError:
    """Returns the error of a file that labels no frame of a store; ``unmatched`` are the frames that it names."""
    found, example = "lists no labelled frame", ""
    if unmatched:
        found, example = f"has {pluralize(len(unmatched), 'frame')}, none", f", first {unmatched[0]}"
    return MaskcastError(
        f"{path}: {found} of a clip in {store.root}{example}; names must be {FRAME_RULE}, as in exports"
    )


def _new_splits(
    store: ClipStore, labels: Mapping[str, NewLabels], split: str | None, report: ImportReport
) -> dict[str, str]:
    """Returns the split of each clip that changes it, so that a video stays together, as ``prepare_clips`` does.

    A clip that had no labels joins the given split, else that of its video's labelled clips, if they are all of
    one. If all labels of a video are scored, its unlabelled clips leave ``unlabeled``, which is trained on.
    """
    new = [store.get(clip_id) for clip_id in labels if store.get(clip_id).kind != "labelled"]
    parts: dict[str, list[Clip]] = {clip.video: [] for clip in new}  # all clips of the videos with new labels
    for clip in store.clips:
        if clip.video in parts:
            parts[clip.video].append(clip)
    splits: dict[str, str] = {}
    for clips in parts.values():
        known = {clip.split for clip in clips if clip.kind == "labelled"}
        joined = split or (known.pop() if len(known) == 1 else DEFAULT_SPLIT)
        added = {clip.id: joined for clip in clips if clip.kind != "labelled" and clip.id in labels}
        splits |= added
        if joined != (split or DEFAULT_SPLIT):
            report.followed |= added
        found = {added.get(clip.id, clip.split) for clip in clips if clip.kind == "labelled" or clip.id in added}
        if found <= set(TRAINING_SPLITS):
            continue
        trained = [clip for clip in clips if added.get(clip.id, clip.split) in TRAINING_SPLITS]
        if len(found) > 1:
            report.trained += [clip.id for clip in trained]
        else:
            report.moved += [clip.id for clip in trained]
            splits |= {clip.id: joined for clip in trained}
    return splits


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """Yields the path; for an archive, a temporary folder with its content, which exists during the block.

    Raises:
        MaskcastError: the path does not exist, or the file is empty.
    """
    if not path.exists():
        raise MaskcastError(f"{path}: file or folder not found; give the export of the labelling tool")
    if path.is_file() and not path.stat().st_size:
        raise MaskcastError(f"{path}: is empty; export the labels again")
    if not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="maskcast-labels-") as scratch:
        unpack(path, Path(scratch) / path.stem)
        yield Path(scratch) / path.stem


@dataclass(frozen=True)
class _Match:
    """The places of a listed frame in the clips of a store.

    Attributes:
        named: clips and indices that the file names; several if it names a video.
        others: further places of the same frame, where clips of the video overlap.
    """

    named: Sequence[FrameId]
    others: Sequence[FrameId] = ()


def _match_frame(frame: ImportedFrame, store: ClipStore, videos: VideoFrames) -> _Match | None:
    """Returns the places of a frame, or None if the store has no such clip or video frame.

    Raises:
        MaskcastError: the clip is shorter.
    """
    for clip_id, t in frame.frame_ids:
        if clip_id in store:
            length = store.get(clip_id).num_frames
            if not 0 <= t < length:
                raise MaskcastError(
                    f"{frame.where}: clip {clip_id!r} of {store.root} has frames 0 to {length - 1}, not {t}; use "
                    "the store that the labels were exported from"
                )
            named = [(clip_id, t)]
            return _Match(named, [place for place in videos.same(clip_id, t) if place not in named])
    for video, number in frame.frame_ids:
        if places := videos.places(video, number):
            return _Match(places)
    return None


def _fits(store: ClipStore, size: Size) -> bool:
    """Whether frames of a size show what the store's show, up to rounding: neither is rotated or cropped.

    Of clips that were distorted, the store states the least and the greatest aspect ratio of their sources.
    """
    tolerance = min(MAX_DISTORTION, ROUNDING / min(*size, store.height, store.width))
    aspect, own = math.log(size[1] / size[0]), math.log(store.width / store.height)
    least, greatest = map(math.log, store.meta.get("source_aspect", [store.width / store.height] * 2))
    return abs(aspect - own) <= tolerance or least - tolerance <= aspect <= greatest + tolerance


class _NewLabels:
    """The new labels of all clips.

    Attributes:
        clips: those with new labels, by id.
    """

    def __init__(self, store: ClipStore, names: ClassNames, duplicate_remedy: str) -> None:
        self._store, self._names, self._duplicate_remedy = store, names, duplicate_remedy
        self._has_objects = store.label_map.kind == "instances"
        self._named: dict[str, set[int]] = defaultdict(set)  # frames that the file names, by clip
        self.clips: dict[str, _ClipLabels] = {}

    @property
    def num_frames(self) -> int:
        """Number of labelled frames of all clips."""
        return sum(len(clip.frames) for clip in self.clips.values())

    def add(self, frame: ImportedFrame, match: _Match) -> None:
        """Adds the labels of a frame in all its places; those that the file names take precedence.

        Raises:
            MaskcastError: a place is listed twice, the frame has another aspect ratio, or an unknown class.
        """
        for clip_id, t in match.named:
            if t in self._named[clip_id]:
                raise MaskcastError(
                    f"{frame.where}: frame {t} of clip {clip_id!r} is listed twice; {self._duplicate_remedy}"
                )
            self._named[clip_id].add(t)
        size = frame.size or (self._store.height, self._store.width)
        if not _fits(self._store, size):
            raise MaskcastError(
                f"{frame.where}: is {size[1]}x{size[0]}, the clips of {self._store.root} are "
                f"{self._store.width}x{self._store.height} (width x height), of another aspect ratio; label the "
                "frames that `labels export` wrote, neither rotated nor cropped"
            )
        if self._has_objects:  # which are numbered in each clip, and need labels in all of its frames
            for clip_id, t in match.named:
                self._clip(clip_id).add_objects(t, frame, size, self._names)
            return
        packed = _pack(self._painted(frame, size), (self._store.height, self._store.width))
        for clip_id, t in match.named:
            self._clip(clip_id).frames[t] = packed
        for clip_id, t in match.others:
            if t not in self._named.get(clip_id, ()) and self._store.get(clip_id).kind != "hidden":
                self._clip(clip_id).frames[t] = packed

    def fill_background(self) -> int:
        """Makes all unlisted frames of the clips that the file names background; returns their number."""
        return sum(self.clips[clip_id].fill_background() for clip_id in self._named)

    def _clip(self, clip_id: str) -> "_ClipLabels":
        if clip_id not in self.clips:
            self.clips[clip_id] = _ClipLabels(self._store, clip_id)
        return self.clips[clip_id]

    def _painted(self, frame: ImportedFrame, size: Size) -> np.ndarray:
        """Returns the classes of a frame, (H, W) uint8; regions in front cover those behind."""
        mask_HW = np.zeros(size, np.uint8)
        for region in frame.regions(size):
            mask_HW[region.mask_HW] = self._names.id_of(region.class_name, frame.where)
        return mask_HW


def _pack(mask_HW: np.ndarray, size: Size) -> bytes:
    return zstandard.compress(resize_masks(mask_HW[None], *size).tobytes(), 3)


class _ClipLabels:
    """The new labels of a clip, kept compressed frame by frame.

    Attributes:
        frames: masks at the size of the clips, by frame.
    """

    def __init__(self, store: ClipStore, clip_id: str) -> None:
        self._store, self._clip = store, store.get(clip_id)
        if self._clip.kind == "hidden":
            raise MaskcastError(
                f"{store.root}: clip {clip_id!r} is hidden and cannot be labelled; remove its frames from the file"
            )
        self._instances = store.label_map.kind == "instances"
        self._size, self._dtype = (store.height, store.width), np.uint32 if self._instances else np.uint8
        self._objects: dict[tuple[int, int], int] = {}  # key (class, instance): painted number
        self._num_new = 0  # objects without a number in the file
        self.frames: dict[int, bytes] = {}

    def add_objects(self, t: int, frame: ImportedFrame, size: Size, names: ClassNames) -> None:
        """Adds the objects of a frame, drawn at a size; regions in front cover those behind."""
        mask_HW = np.zeros(size, np.uint32)
        for region in frame.regions(size):
            class_id = names.id_of(region.class_name, frame.where)
            if class_id not in (0, IGNORE):
                mask_HW[region.mask_HW] = self._object_number(class_id, region.instance)
        self.frames[t] = _pack(mask_HW, self._size)

    def fill_background(self) -> int:
        """Makes all frames without new labels background; returns their number."""
        missing = [t for t in range(self._clip.num_frames) if t not in self.frames]
        self.frames |= dict.fromkeys(missing, _pack(np.zeros(self._size, self._dtype), self._size))
        return len(missing)

    def finish(self) -> NewLabels:
        """Returns the new labels combined with the previous labels of the clip."""
        store, clip = self._store, self._clip
        old_frames = set(labelled_frames(store, clip))
        frames = sorted(old_frames | set(self.frames))
        if not self._instances:
            masks = store.masks(clip) if old_frames else np.full((clip.num_frames, *self._size), IGNORE, np.uint8)
            for t in self.frames:
                masks[t] = self._frame(t)
            return NewLabels(masks, frames)
        if len(self.frames) < clip.num_frames:
            raise MaskcastError(
                f"{store.root}: of clip {clip.id!r} {len(self.frames)} of {clip.num_frames} frames are labelled; "
                f"map {store.label_map.name!r} has objects, so all frames need labels; label all of them"
            )
        instance_ids, objects = self._instance_ids()
        masks = np.stack([instance_ids[self._frame(t)] for t in range(clip.num_frames)])
        return NewLabels(masks, frames, objects)

    def _frame(self, t: int) -> np.ndarray:
        return np.frombuffer(zstandard.decompress(self.frames[t]), self._dtype).reshape(self._size)

    def _object_number(self, class_id: int, instance: int | None) -> int:
        """Returns the number that an object is painted with: its index among the clip's objects, from 1."""
        if instance is None:
            self._num_new += 1
            instance = -self._num_new  # without a number, each region is a new object
        return self._objects.setdefault((class_id, instance), 1 + len(self._objects))

    def _instance_ids(self) -> tuple[np.ndarray, dict[int, int]]:
        """Returns the instance id of each painted number, uint16, and the class of each instance id."""
        instances = instance_ids([instance for _, instance in self._objects])
        if len(instances) > MAX_INSTANCE_ID:
            raise MaskcastError(
                f"clip {self._clip.id!r}: has {len(instances)} objects; at most {MAX_INSTANCE_ID} are supported"
            )
        classes = [class_id for class_id, _ in self._objects]
        return np.array([0, *instances], np.uint16), dict(zip(instances, classes, strict=True))
