"""The clips of a store's index, built on access, so that a store of any size opens at once."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, overload

import numpy as np
from pydantic import Field, GetPydanticSchema
from pydantic_core import core_schema

FRAMES = "frames"  # the layer of RGB frames
MAX_FRAMES = 1 << 24  # per clip: three days at 60 fps

# Constraints of numbers in an index. Strict, because pydantic would take "0" and true for numbers.
Count = Annotated[int, Field(strict=True, ge=0, le=1 << 62)]
Positive = Annotated[int, Field(strict=True, ge=1, le=1 << 62)]
# A key, which is text in JSON. int() would take "+1", " 1" and "1_0" for numbers.
_KEY = core_schema.chain_schema([core_schema.str_schema(pattern="^[0-9]{1,5}$"), core_schema.int_schema()])
InstanceId = Annotated[int, GetPydanticSchema(lambda *_: _KEY)]
ClassId = Annotated[int, Field(strict=True, ge=1, le=255)]


def masks_layer(label_map: str) -> str:
    """Returns the name of the layer that holds the masks of a label map."""
    return f"labels/{label_map}"


def confidence_layer(label_map: str) -> str:
    """Returns the name of the layer that holds the confidence in the masks of a label map."""
    return f"confidence/{label_map}"


@dataclass(frozen=True)
class FrameSpan:
    """The location of a clip's frames: rows of a shard."""

    shard: str
    start: Count
    size: Count


@dataclass(frozen=True)
class StoredFrames:
    """Frames of a clip of another store, whose shard a writer links.

    Attributes:
        frames_THWC: the frames, uint8.
        shard: path of the shard.
        start: row of the first frame in the shard.
        entry: what the other store's index records of the shard, such as its sha256.
    """

    frames_THWC: np.ndarray
    shard: Path
    start: int
    entry: dict[str, Any]


@dataclass(frozen=True)
class LayerSpan:
    """The location of a compressed layer of a clip.

    Attributes:
        shard: file name.
        start: byte offset of the first chunk.
        chunks: size of each chunk in bytes; chunks are contiguous.
        chunk_frames: number of frames of a chunk; the last chunk may hold fewer. 0 as read from a line, which does
            not say it.
    """

    shard: str
    start: Count
    chunks: tuple[Positive, ...]
    chunk_frames: int = 0

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The byte offset of each chunk."""
        return tuple(accumulate(self.chunks[:-1], initial=self.start))


@dataclass(frozen=True)
class Clip:
    """One clip as the index lists it.

    Attributes:
        id: unique in the store.
        split: one of `maskcast.labels.SPLITS`.
        kind: one of `maskcast.labels.KINDS`.
        num_frames: number of frames.
        frames: location of the frames, or None if the store has none.
        layers: locations of ``labels/<map>`` and ``confidence/<map>``.
        objects: for each map of kind instances, the class id of each instance id.
        meta: JSON from the writer.
        store: digest of the store whose index lists the clip; empty while it is written.
    """

    id: str
    split: str
    kind: str
    num_frames: Annotated[int, Field(strict=True, ge=1, le=MAX_FRAMES)]
    frames: FrameSpan | None
    layers: dict[str, LayerSpan] = field(hash=False)
    objects: dict[str, dict[InstanceId, ClassId]] = field(hash=False)
    meta: dict[str, Any] = field(hash=False)
    store: str = field(default="", compare=False, repr=False)

    @property
    def has_frames(self) -> bool:
        """Whether the store has RGB frames of this clip."""
        return self.frames is not None

    @property
    def video(self) -> str:
        """Name of the video that the clip was cut from; the clip's id if that is unknown."""
        return str(self.meta.get("video", self.id))

    @property
    def video_frames(self) -> Sequence[int] | None:
        """Number of each frame in the clip's video, from 0 on; None if the store does not say."""
        numbers, start, stride = (self.meta.get(key) for key in ("video_frames", "start", "stride"))
        if {"background", "first_frame"} & self.meta.keys():  # composed frames, and parts of clips
            return None
        if isinstance(numbers, list):
            whole = len(numbers) == self.num_frames and all(isinstance(number, int) for number in numbers)
            return numbers if whole else None
        if "frame_rate" in self.meta:  # an older store, where start may count frames that `fps` took
            return None
        if not (isinstance(start, int) and isinstance(stride, int) and stride > 0):
            return None
        return range(start, start + self.num_frames * stride, stride)

    @property
    def frame_names(self) -> Sequence[str] | None:
        """Name of each frame's image in the raw data, without ending; None if unknown or counting 0, 1, ..."""
        names = self.meta.get("frame_names")
        whole = isinstance(names, list) and len(names) == self.num_frames and self.video_frames is not None
        return names if whole else None

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the clip's layers in the store, ``frames`` first."""
        return ((FRAMES,) if self.has_frames else ()) + tuple(self.layers)

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the label maps for which the clip has masks."""
        return tuple(name.removeprefix("labels/") for name in self.layers if name.startswith("labels/"))


@dataclass(frozen=True)
class Group:
    """The properties that clips of one group share.

    Attributes:
        split: as of a clip.
        kind: as of a clip.
        layers: names of the layers in the store.
        clips: number of clips that the index lists; 0 while it is written.
    """

    split: str
    kind: str
    layers: tuple[str, ...]
    clips: Count = field(compare=False)

    @property
    def has_frames(self) -> bool:
        """Whether the store has RGB frames of these clips."""
        return FRAMES in self.layers


def group_of(clip: Clip) -> Group:
    """Returns the group of a clip."""
    return Group(clip.split, clip.kind, clip.layer_names, clips=0)


def group_clips(clips: Iterable[Clip]) -> tuple[tuple[Group, ...], np.ndarray]:
    """Returns all groups of the clips, and the index of each clip's group, (N,) uint64."""
    numbers: dict[Group, int] = {}
    found = [numbers.setdefault(group_of(clip), len(numbers)) for clip in clips]
    return tuple(numbers), np.array(found, np.uint64)


def id_hash(clip_id: str) -> int:
    """Returns a 64-bit hash of a clip id."""
    return int.from_bytes(hashlib.sha256(clip_id.encode(errors="surrogatepass")).digest()[:8], "little")


class Table:
    """All clips of an index by row.

    Args:
        num_frames: number of frames of each clip, (N,) uint64.
        hashes: ``id_hash`` of each clip, (N,) uint64.
        groups: all groups.
        numbers: index of each clip's group, (N,) uint64.
        build: returns the clip of a row.
    """

    def __init__(
        self,
        num_frames: np.ndarray,
        hashes: np.ndarray,
        groups: Sequence[Group],
        numbers: np.ndarray,
        build: Callable[[int], Clip],
    ) -> None:
        self.num_frames, self.groups, self.build = num_frames, groups, build
        self._hashes, self._numbers = hashes, numbers

    def __len__(self) -> int:
        return len(self.num_frames)

    @cached_property
    def _by_hash(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.argsort(self._hashes, kind="stable")
        return order, self._hashes[order]

    def find(self, clip_id: object) -> Clip | None:
        """Returns the clip with this id, or None; values that are not strings are never found."""
        if not isinstance(clip_id, str):
            return None
        order, sorted_hashes = self._by_hash
        low, high = (
            np.searchsorted(sorted_hashes, np.uint64(id_hash(clip_id)), side) for side in ("left", "right")
        )
        return next((clip for row in order[low:high] if (clip := self.build(int(row))).id == clip_id), None)

    def rows(self, keep: Callable[[Group], bool]) -> "range | np.ndarray":
        """Returns the rows of the groups that satisfy ``keep``, as a range if they are contiguous."""
        kept = [number for number, group in enumerate(self.groups) if keep(group)]
        if len(kept) == len(self.groups):
            return range(len(self))
        found = np.zeros(len(self), bool)
        for number in kept:
            found |= self._numbers == number
        rows = np.flatnonzero(found)
        together = len(rows) and rows[-1] - rows[0] == len(rows) - 1
        return range(int(rows[0]), int(rows[-1]) + 1) if together else rows


class Clips(Sequence[Clip]):
    """Some rows of a table."""

    def __init__(self, table: Table, rows: "range | np.ndarray") -> None:
        self._table, self._rows = table, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Clip: ...
    @overload
    def __getitem__(self, index: slice) -> "Clips": ...
    def __getitem__(self, index: int | slice) -> "Clip | Clips":
        if isinstance(index, slice):
            return Clips(self._table, self._rows[index])
        return self._table.build(int(self._rows[index]))

    def __iter__(self) -> Iterator[Clip]:
        return (self._table.build(int(row)) for row in self._rows)

    def __reduce__(self) -> tuple[type[tuple[Clip, ...]], tuple[tuple[Clip, ...]]]:
        """Pickles the clips as a tuple, without the table of the whole store."""
        return tuple, (tuple(self),)

    def frame_counts(self) -> np.ndarray:
        """Returns the number of frames of each clip, (N,) int64."""
        rows = self._rows
        part = slice(rows.start, rows.stop) if isinstance(rows, range) and rows.step == 1 else np.asarray(rows)
        return self._table.num_frames[part].astype(np.int64)


def frame_counts(clips: Sequence[Clip]) -> np.ndarray:
    """Returns the number of frames of each clip, (N,) int64."""
    if isinstance(clips, Clips):
        return clips.frame_counts()
    return np.array([clip.num_frames for clip in clips], np.int64)
