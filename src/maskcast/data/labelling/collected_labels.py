"""Collects the new labels of clips, frame by frame, as label files name them.

Legend: H height, W width.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import zstandard

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.images import Size, resize_masks
from maskcast.data.labelling.formats.base import MAX_INSTANCE_ID, FrameId, ImportedFrame, instance_ids
from maskcast.data.labelling.formats.class_names import ClassNames
from maskcast.data.labelling.relabelling import NewLabels
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE

ROUNDING = 4  # pixels that a side of clips or labels may be rounded by: `init` takes multiples of 8
MAX_DISTORTION = 0.1  # of the aspect ratio, relative: rounding of smaller frames is not told from cropping


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

    @property
    def num_frames(self) -> int:
        """Number of labelled frames of all clips."""
        return sum(len(clip.frames) for clip in self.clips.values())

    def add(self, frame: ImportedFrame, match: FrameMatch) -> None:
        """Adds the labels of a frame in all its places; those that the file names take precedence.

        Raises:
            MaskcastError: a place is listed twice, the frame has another aspect ratio, or an unknown class.
        """
        if hidden := [clip_id for clip_id, _ in match.named if self._store.get(clip_id).kind == "hidden"]:
            self._hidden.update(dict.fromkeys(hidden))
            return
        for clip_id, t in match.named:
            if t in self._named[clip_id]:
                raise MaskcastError(
                    f"{frame.where}: frame {t} of clip {clip_id!r} is listed twice; {self._duplicate_remedy}"
                )
            self._named[clip_id].add(t)
        size = frame.size or (self._store.height, self._store.width)
        if not _fits(size, (self._store.height, self._store.width), self._aspects_of(match.named[0][0])):
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

    def check_hidden(self) -> None:
        """Raises an error that names all hidden clips of the file."""
        if self._hidden:
            raise MaskcastError(
                f"{self._store.root}: the file labels hidden clips, which cannot be labelled; remove their "
                f"frames from it: {', '.join(map(repr, self._hidden))}"
            )

    def fill_background(self) -> int:
        """Makes all unlisted frames of the clips that the file names background; returns their number."""
        return sum(self.clips[clip_id].fill_background() for clip_id in self._named)

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


def _fits(size: Size, clip_size: Size, aspects: tuple[float, float]) -> bool:
    """Whether frames of a size show what a clip shows, up to rounding: neither is rotated or cropped.

    Args:
        size: of the frames.
        clip_size: of the clip, which may be distorted.
        aspects: least and greatest aspect ratio that the clip's source may have.
    """
    tolerance = min(MAX_DISTORTION, ROUNDING / min(*size, *clip_size))
    aspect, own = math.log(size[1] / size[0]), math.log(clip_size[1] / clip_size[0])
    least, greatest = map(math.log, aspects)
    return abs(aspect - own) <= tolerance or least - tolerance <= aspect <= greatest + tolerance
