"""Imports labels of another tool into the clips that they belong to.

A frame that is not listed in the file has no label, which is not the same as background: losses and metrics ignore
its pixels. A frame that is listed without any region is background or unlabelled, as the user chooses.

Legend: T frames, H height, W width.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zstandard

from maskcast.data.archives.unpack import is_archive, unpack
from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.labelling.formats.base import (
    MAX_INSTANCE_ID,
    Empty,
    ImportedFrame,
    LabelFormat,
    instance_ids,
)
from maskcast.data.labelling.formats.class_names import ClassNames
from maskcast.data.labelling.formats.names import FRAME_RULE
from maskcast.data.labelling.relabelling import NewLabels, write_relabelled
from maskcast.data.shared_frames import TRAINING_SPLITS
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.reading import parsing, pluralize


@dataclass
class ImportReport:
    """Summary of an import.

    Attributes:
        clips: number of clips with new labels.
        frames: number of labelled frames in all clips.
        empty: how many of these are listed without any region.
        unlabelled: number of frames that are listed without any region and stay unlabelled.
        unmatched: names of frames that belong to no clip of the store.
        unused_renames: messages about renamed classes that no labelled frame has.
        trained: clips that are scored on from now on, with another clip of the same video that is trained on.
    """

    clips: int = 0
    frames: int = 0
    empty: int = 0
    unlabelled: int = 0
    unmatched: list[str] = field(default_factory=list)
    unused_renames: list[str] = field(default_factory=list)
    trained: list[tuple[str, str]] = field(default_factory=list)


def import_labels(
    root: Path,
    form: LabelFormat,
    path: Path,
    store: ClipStore,
    *,
    rename: Mapping[str, str],
    empty: Empty,
    split: str,
    first: int | None = None,
) -> ImportReport:
    """Writes a store with the clips of another store and the labels of a file.

    Args:
        root: folder to write.
        form: format of the file.
        path: file, folder or archive of labels.
        store: the clips; the labels go to its chosen map.
        rename: class name in the store by class name in the file.
        empty: what a frame is if it is listed without any region.
        split: split of clips that had no labels before.
        first: number of a clip's first frame, for an ambiguous format; None to find it from the file.

    Raises:
        MaskcastError: the file is damaged or contradicts the store, or none of its frames is in the store.
    """
    if store.label_map.kind == "alpha":
        raise MaskcastError(
            f"{store.root}: map {store.label_map.name!r} is an alpha matte, which no label format supports"
        )
    names, report = ClassNames(store.classes, form, rename, "--rename '{}={}'"), ImportReport()
    labels_by_clip: dict[str, _ClipLabels] = {}
    with _unpacked(path) as opened, parsing(path, f"labels of {form.name}", "export them again"):
        try:
            if form.has_ambiguous_start:
                form.detect_first_frame(opened, {clip.id: clip.num_frames for clip in store.clips}, first)
            for frame in form.read(opened):
                match = _match_frame(frame, store)
                if match is None:
                    report.unmatched.append(frame.where)
                elif frame.empty and empty == "unlabelled":
                    report.unlabelled += 1
                else:
                    report.empty += frame.empty
                    clip_id, t = match
                    if clip_id not in labels_by_clip:
                        labels_by_clip[clip_id] = _ClipLabels(store, clip_id, form.duplicate_remedy)
                    labels_by_clip[clip_id].add_frame(t, frame, names)
        except MaskcastError as error:  # for an archive it names the temporary folder
            raise MaskcastError(str(error).replace(str(opened), str(path))) from None
        report.unmatched = [where.replace(str(opened), str(path)) for where in report.unmatched]
    if not labels_by_clip:
        raise _no_frames_error(path, store, report.unmatched)
    if form.covers_all_frames and empty == "background":
        for clip in labels_by_clip.values():
            report.empty += clip.fill_background()
    report.unused_renames = list(names.unused_renames())
    labels = {clip_id: clip.finish() for clip_id, clip in labels_by_clip.items() if clip.frames}
    report.clips, report.frames = len(labels), sum(len(clip.frames) for clip in labels_by_clip.values())
    if split != "train":
        report.trained = _of_trained_videos(store, labels)
    write_relabelled(root, store, labels, split)
    return report


def _no_frames_error(path: Path, store: ClipStore, unmatched: Sequence[str]) -> MaskcastError:
    """Returns the error of a file that labels no frame of a store; ``unmatched`` are the frames that it names."""
    found, example = "lists no labelled frame", ""
    if unmatched:
        found, example = f"has {pluralize(len(unmatched), 'frame')}, none", f", first {unmatched[0]}"
    return MaskcastError(
        f"{path}: {found} of a clip in {store.root}{example}; names must be {FRAME_RULE}, as in exports"
    )


def _of_trained_videos(store: ClipStore, labels: Mapping[str, NewLabels]) -> list[tuple[str, str]]:
    """Returns the clips that had no labels, each with another clip of its video that is trained on, if any."""
    new = [clip for name in labels if (clip := store.get(name)).kind != "labelled"]
    new_ids, trained = {clip.id for clip in new}, store.where(lambda group: group.split in TRAINING_SPLITS)
    others = {clip.video: clip.id for clip in trained if clip.id not in new_ids}
    return [(clip.id, others[clip.video]) for clip in new if clip.video in others]


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


def _match_frame(frame: ImportedFrame, store: ClipStore) -> tuple[str, int] | None:
    """Returns clip and frame index, or None if the store has no such clip.

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
            return clip_id, t
    return None


class _ClipLabels:
    """The new labels of a clip, kept compressed frame by frame."""

    def __init__(self, store: ClipStore, clip_id: str, duplicate_remedy: str) -> None:
        self._store, self._clip, self._duplicate_remedy = store, store.get(clip_id), duplicate_remedy
        if self._clip.kind == "hidden":
            raise MaskcastError(
                f"{store.root}: clip {clip_id!r} is hidden and cannot be labelled; remove its frames from the file"
            )
        self._instances = store.label_map.kind == "instances"
        self._size, self._dtype = (store.height, store.width), np.uint32 if self._instances else np.uint8
        self._objects: dict[tuple[int, int], int] = {}  # key (class, instance): painted number
        self._num_new = 0  # objects without a number in the file
        self.frames: dict[int, bytes] = {}

    def add_frame(self, t: int, frame: ImportedFrame, names: ClassNames) -> None:
        """Adds the labels of a frame; regions in front cover those behind.

        Raises:
            MaskcastError: the frame is listed twice, has another size, or has an unknown class.
        """
        where = frame.where
        if t in self.frames:
            raise MaskcastError(
                f"{where}: frame {t} of clip {self._clip.id!r} is listed twice; {self._duplicate_remedy}"
            )
        if frame.size is not None and frame.size != self._size:
            raise MaskcastError(
                f"{where}: is {frame.size[1]}x{frame.size[0]}, the clips of {self._store.root} are "
                f"{self._size[1]}x{self._size[0]}; label the frames that `labels export` wrote"
            )
        mask_HW = np.zeros(self._size, self._dtype)
        for region in frame.regions(self._size):
            class_id = names.id_of(region.class_name, where)
            if not self._instances:
                mask_HW[region.mask_HW] = class_id
            elif class_id not in (0, IGNORE):
                mask_HW[region.mask_HW] = self._object_number(class_id, region.instance)
        self.frames[t] = zstandard.compress(mask_HW.tobytes(), 3)

    def fill_background(self) -> int:
        """Makes all unlisted frames background; returns their number."""
        missing = [t for t in range(self._clip.num_frames) if t not in self.frames]
        background = zstandard.compress(np.zeros(self._size, self._dtype).tobytes(), 3)
        self.frames |= dict.fromkeys(missing, background)
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
