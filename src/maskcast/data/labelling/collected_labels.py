"""Collects the new labels of clips, frame by frame, as label files name them.

Legend: H height, W width.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import zstandard

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.images import Size, have_one_aspect, resize_masks
from maskcast.data.labelling.formats.base import MAX_INSTANCE_ID, FrameId, ImportedFrame, instance_ids
from maskcast.data.labelling.formats.class_names import ClassNames
from maskcast.data.labelling.relabelling import NewLabels
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE

ROUNDING = 4  # pixels that a side of clips or labels may be rounded by: `init` takes multiples of 8


@dataclass(frozen=True)
class FrameMatch:
    """The places of a listed frame in the clips of a store.

    Attributes:
        named: clips and indices that the file names; several if it names a video.
        others: further places of the same frame, where clips of the video overlap.
    """

    named: Sequence[FrameId]
    others: Sequence[FrameId] = ()


class CollectedLabels:
    """The new labels of all clips.

    Attributes:
        clips: those with new labels, by id.
        lost: number of regions that have no pixel at the size of the clips.
        unnumbered: number of regions of a map of objects without an object number.
    """

    def __init__(self, store: ClipStore, names: ClassNames, duplicate_remedy: str) -> None:
        self._store, self._names, self._duplicate_remedy = store, names, duplicate_remedy
        self._has_objects = store.label_map.kind == "instances"
        # Stores of before have only the least and the greatest aspect of all sources.
        self._has_aspects = "source_aspect" in store.meta and any(
            "source_aspect" in clip.meta for clip in store.clips
        )
        self._named: dict[str, set[int]] = defaultdict(set)  # frames that the file names, by clip
        self._hidden: dict[str, None] = {}  # hidden clips that the file names, in its order
        self.clips: dict[str, _ClipLabels] = {}
        self.lost = self.unnumbered = 0

    @property
    def num_frames(self) -> int:
        """Number of labelled frames of all clips."""
        return sum(len(clip.frames) for clip in self.clips.values())

    def add(self, frame: ImportedFrame, match: FrameMatch) -> bool:
        """Adds the labels of a frame in all its places; those that the file names take precedence.

        Returns:
            Whether any pixel has a label. If none has, the frame is without labels, also where it had some.

        Raises:
            MaskcastError: a place is listed twice, the frame has another aspect ratio, or an unknown class.
        """
        if hidden := [clip_id for clip_id, _ in match.named if self._store.get(clip_id).kind == "hidden"]:
            self._hidden.update(dict.fromkeys(hidden))
            return True
        for clip_id, t in match.named:
            if t in self._named[clip_id]:
                raise MaskcastError(
                    f"{frame.where}: frame {t} of clip {clip_id!r} is listed twice; {self._duplicate_remedy}"
                )
            self._named[clip_id].add(t)
        size = frame.size or (self._store.height, self._store.width)
        if not self._fits(match.named[0][0], size):
            raise MaskcastError(
                f"{frame.where}: is {size[1]}x{size[0]}, the clips of {self._store.root} are "
                f"{self._store.width}x{self._store.height} (width x height), of another aspect ratio; label the "
                "frames that `labels export` wrote, neither rotated nor cropped"
            )
        painted = self._paint(frame, size)
        if self._has_objects:  # which are numbered in each clip, and need labels in all of its frames
            if any(self._store.get(clip_id).num_frames > 1 for clip_id, _ in match.named):
                self.unnumbered += sum(
                    instance is None for class_id, instance in painted.objects if class_id not in (0, IGNORE)
                )
            for clip_id, t in match.named:
                self._clip(clip_id).add_objects(t, painted)
            return True
        mask_HW = np.array([0, *(class_id for class_id, _ in painted.objects)], np.uint8)[painted.numbers_HW]
        mask_HW[painted.lost_HW] = IGNORE
        packed = None if (mask_HW == IGNORE).all() else _pack(mask_HW)
        free = [place for place in match.others if place[1] not in self._named.get(place[0], ())]
        for clip_id, t in (*match.named, *free):
            clip = self._store.get(clip_id)
            if clip.kind != "hidden" and (packed is not None or t in labelled_frames(self._store, clip)):
                self._clip(clip_id).set(t, packed)
        return packed is not None

    def check_hidden(self) -> None:
        """Raises an error that names all hidden clips of the file."""
        if self._hidden:
            raise MaskcastError(
                f"{self._store.root}: the file labels hidden clips, which cannot be labelled; remove their "
                f"frames from it: {', '.join(map(repr, self._hidden))}"
            )

    def fill_background(self) -> int:
        """Makes all unlisted frames of the clips that the file names background; returns their number."""
        return sum(self._clip(clip_id).fill_background(listed) for clip_id, listed in self._named.items())

    def _fits(self, clip_id: str, size: Size) -> bool:
        """Whether frames of a size show what a clip shows, up to rounding: neither is rotated or cropped."""
        height, (least, greatest) = self._store.height, self._aspects_of(clip_id)
        aspects = self._store.width / height, least, greatest  # the clip may be distorted
        return least <= size[1] / size[0] <= greatest or any(
            have_one_aspect(size, (height, aspect * height), ROUNDING) for aspect in aspects
        )

    def _aspects_of(self, clip_id: str) -> tuple[float, float]:
        """Returns the least and the greatest aspect ratio that the source of a clip may have."""
        own = self._store.width / self._store.height
        if self._has_aspects:
            aspect = self._store.get(clip_id).meta.get("source_aspect", own)
            return aspect, aspect
        least, greatest = self._store.meta.get("source_aspect", (own, own))
        return least, greatest

    def _clip(self, clip_id: str) -> "_ClipLabels":
        if clip_id not in self.clips:
            self.clips[clip_id] = _ClipLabels(self._store, clip_id)
        return self.clips[clip_id]

    def _paint(self, frame: ImportedFrame, size: Size) -> "_Painted":
        """Returns the regions of a frame at the size of the clips; regions in front cover those behind."""
        numbers_HW = np.zeros(size, np.uint32)
        objects: list[tuple[int, int | None]] = []
        for number, region in enumerate(frame.regions(size), 1):
            class_id = self._names.id_of(region.class_name, frame.where)
            objects.append((class_id, region.instance))
            if self._has_objects and class_id in (0, IGNORE):
                continue
            numbers_HW[region.mask_HW] = number
            self.lost += class_id not in (0, IGNORE) and not region.mask_HW.any()
        small_HW = resize_masks(numbers_HW[None], self._store.height, self._store.width)[0]
        drawn, kept = (np.bincount(one.ravel(), minlength=len(objects) + 1) > 0 for one in (numbers_HW, small_HW))
        is_lost = drawn & ~kept
        is_lost[0] = False
        lost_HW = np.zeros(small_HW.shape, bool)
        if is_lost.any():
            rows, columns = np.nonzero(is_lost[numbers_HW])
            lost_HW[rows * small_HW.shape[0] // size[0], columns * small_HW.shape[1] // size[1]] = True
            self.lost += sum(objects[number - 1][0] not in (0, IGNORE) for number in np.flatnonzero(is_lost))
        return _Painted(small_HW, objects, lost_HW)


@dataclass(frozen=True)
class _Painted:
    """The regions of a frame.

    Attributes:
        numbers_HW: for each pixel of the clips' size the number of its region, from 1; 0 without.
        objects: class and object number of each region.
        lost_HW: bool, pixels that regions touch of which no pixel is left.
    """

    numbers_HW: np.ndarray
    objects: Sequence[tuple[int, int | None]]
    lost_HW: np.ndarray


def _pack(mask_HW: np.ndarray) -> bytes:
    return zstandard.compress(mask_HW.tobytes(), 3)


class _ClipLabels:
    """The new labels of a clip, kept compressed frame by frame.

    Attributes:
        frames: masks at the size of the clips, by frame.
    """

    def __init__(self, store: ClipStore, clip_id: str) -> None:
        self._store, self._clip = store, store.get(clip_id)
        self._instances = store.label_map.kind == "instances"
        self._size, self._dtype = (store.height, store.width), np.uint32 if self._instances else np.uint8
        self._objects: dict[tuple[int, int], int] = {}  # key (class, instance): painted number
        self._num_new = 0  # objects without a number in the file
        self._erased: set[int] = set()  # frames that lose their labels
        self.frames: dict[int, bytes] = {}

    def add_objects(self, t: int, painted: _Painted) -> None:
        """Adds the objects of a frame."""
        numbers = [
            0 if class_id in (0, IGNORE) else self._object_number(class_id, instance)
            for class_id, instance in painted.objects
        ]
        self.frames[t] = _pack(np.array([0, *numbers], np.uint32)[painted.numbers_HW])

    def set(self, t: int, packed: bytes | None) -> None:
        """Sets the classes of a frame; None takes its labels away."""
        self.frames.pop(t, None)
        self._erased.discard(t)
        if packed is None:
            self._erased.add(t)
        else:
            self.frames[t] = packed

    def fill_background(self, listed: Collection[int]) -> int:
        """Makes all frames without new labels background, except for the listed ones; returns their number."""
        missing = [t for t in range(self._clip.num_frames) if t not in self.frames and t not in listed]
        self.frames |= dict.fromkeys(missing, _pack(np.zeros(self._size, self._dtype)))
        return len(missing)

    def finish(self) -> NewLabels:
        """Returns the new labels combined with the previous labels of the clip."""
        store, clip = self._store, self._clip
        old_frames = set(labelled_frames(store, clip))
        frames = sorted((old_frames | set(self.frames)) - self._erased)
        if not self._instances:
            masks = store.masks(clip) if old_frames else np.full((clip.num_frames, *self._size), IGNORE, np.uint8)
            for t in self.frames:
                masks[t] = self._frame(t)
            masks[sorted(self._erased)] = IGNORE
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
