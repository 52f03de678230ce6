"""The clip store: a few large shards and an index; frames memory-mapped, masks zstd-compressed in chunks.

    index.json                 sizes, label maps, groups of clips, shards and their sha256, what was skipped
    clips.jsonl                one line of JSON per clip
    clips.npy                  uint64 (4, clips): end of its line, number of frames, hash of its id, its group
    frames-00000.npy           uint8 (N, H, W, 3): the frames of many clips in sequence
    labels-<map>-00000.zst     one zstd frame per ``chunk_frames`` frames of a clip: the values in C order
    confidence-<map>-00000.zst of the same form and shape
    README.md                  how to read all this without maskcast

Each clip has a kind: labelled (true masks), unlabelled or hidden. A store may hold masks without frames (generated
masks, forecasts) and, for each mask, a confidence of the same shape. Stores of format 1, with one label map and
one chunk per clip, can be read as well.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.clip_store.checks import DTYPES
from maskcast.data.clip_store.compression import decompress_frames
from maskcast.data.clip_store.formats import parse_index
from maskcast.data.clip_store.table import (
    FRAMES,
    Clip,
    Clips,
    Group,
    LayerSpan,
    StoredFrames,
    confidence_layer,
    masks_layer,
)
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.labels import MIRROR_SWAPS, LabelMap, MirrorSwaps, mirror_swaps_from_json
from maskcast.reading import load_memmap, parsing, pluralize, read_file, short_repr

ALL = slice(None)


class ClipStore:
    """Reads a clip store.

    Args:
        root: folder with ``index.json``.
        label_map: name of the chosen map, which ``classes``, ``masks`` and ``confidence`` refer to; None chooses
            the only map.

    Attributes:
        maps: all label maps, by name.
        clips: all clips, in the order of the index.

    Raises:
        MaskcastError: if the index or a shard is missing, cut short or of another format, or the map does not
            exist.
    """

    def __init__(self, root: str | Path, label_map: str | None = None) -> None:
        self.root = root = Path(root)
        raw = _read_index(root / "index.json")
        index = parse_index(raw, root / "index.json")
        self.height, self.width, self.maps = index.height, index.width, index.maps
        self.meta, self.skipped = index.meta, index.skipped
        self.digest, self._table, self._shards = index.digest, index.table, index.shards
        self._mapped: dict[str, np.ndarray] = {}
        self._bytes: dict[str, memoryview] = {}
        self.clips = Clips(index.table, range(len(index.table)))
        self._chosen = None if label_map is None else self._known(label_map)

    def __repr__(self) -> str:
        maps = ", ".join(f"{name} ({pluralize(one.num_classes, 'class')})" for name, one in self.maps.items())
        clips = pluralize(len(self.clips), "clip")
        return f"<ClipStore {self.root}: {clips} of {self.height}x{self.width}; label maps: {maps or 'none'}>"

    def of(self, label_map: str) -> "ClipStore":
        """Returns the same store with another chosen map.

        Raises:
            MaskcastError: if the map does not exist.
        """
        other = object.__new__(ClipStore)
        vars(other).update(vars(self))
        other._chosen = self._known(label_map)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles only path and map: another process opens the store itself, as memory maps cannot be sent."""
        return ClipStore, (self.root.absolute(), None if self._chosen is None else self._chosen.name)

    @property
    def label_map(self) -> LabelMap:
        """The chosen map, or the only map.

        Raises:
            MaskcastError: if there are several maps and none is chosen.
        """
        if self._chosen is not None:
            return self._chosen
        if len(self.maps) != 1:
            raise MaskcastError(
                f"{self.root}: has the label maps {', '.join(self.maps)}; choose one (label_map, or --map)"
            )
        return next(iter(self.maps.values()))

    @property
    def mirror_swaps(self) -> MirrorSwaps:
        """The pairs of maps, or of classes, that a horizontal flip swaps; empty if the store declares none.

        Raises:
            MaskcastError: if the declaration is no list of pairs of names.
        """
        try:
            return mirror_swaps_from_json(self.meta.get(MIRROR_SWAPS, []))
        except ValueError as error:
            raise MaskcastError(
                f"{self.root / 'index.json'}: {MIRROR_SWAPS} {error}; prepare the clips again"
            ) from None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the chosen map, the background first."""
        return self.label_map.classes

    @property
    def num_classes(self) -> int:
        """Number of classes of the chosen map, background included."""
        return self.label_map.num_classes

    def get(self, clip_id: str) -> Clip:
        """Returns the clip with this id.

        Raises:
            MaskcastError: if there is no such clip.
        """
        found = self._table.find(clip_id)
        if found is None:
            raise MaskcastError(f"{self.root}: no clip {clip_id!r} among its {len(self.clips)}; see clips.jsonl")
        return found

    def __contains__(self, clip_id: str) -> bool:
        return self._table.find(clip_id) is not None

    def select(self, split: str | None = None, kind: str | None = None) -> Clips:
        """Returns the clips of a split and kind, in the order of the index.

        If a map is chosen, ``labelled`` clips are those with labels in that map.

        Raises:
            MaskcastError: if there are none; the message says what the store holds.
        """

        def keep(group: Group) -> bool:
            labelled = kind != "labelled" or self._chosen is None or masks_layer(self._chosen.name) in group.layers
            return split in (None, group.split) and kind in (None, group.kind) and labelled

        found = self.where(keep)
        if not found:
            wanted = " ".join(word for word in (kind, "clips", f"in split {split!r}" if split else "") if word)
            remedy = "label some of its sequences (docs/your-data.md)" if kind == "labelled" else "add some"
            raise MaskcastError(
                f"{self.root}: holds no {wanted}; it has {self.holds()}: {remedy} or fix the splits of "
                "prepare_clips.source, and prepare the clips again"
            )
        return found

    def where(self, keep: Callable[[Group], bool]) -> Clips:
        """Returns the clips whose group satisfies ``keep``, in the order of the index; possibly none."""
        return Clips(self._table, self._table.rows(keep))

    def holds(self) -> str:
        """Returns a text that lists the splits and kinds of the clips."""
        return ", ".join(sorted({f"{group.split} ({group.kind})" for group in self._table.groups})) or "nothing"

    def has_masks(self, clip: Clip) -> bool:
        """Whether the store has masks for a clip in the chosen map."""
        return masks_layer(self.label_map.name) in self._of_store(clip).layers

    def remedy_without_masks(self, clip: Clip) -> str:
        """Returns the remedy for an error about a clip of this store that has no generated masks."""
        if clip.has_frames:
            return f"run generate_masks on {self.root}"
        return (
            f"it has no frames in {self.root} to be masked: prepare it with frames, or put it into another split"
        )

    def has_confidence(self, clip: Clip) -> bool:
        """Whether the store has a confidence for each mask pixel."""
        return confidence_layer(self.label_map.name) in self._of_store(clip).layers

    def frames(self, clip: Clip) -> np.ndarray:
        """Returns the frames, (T, H, W, 3) uint8, as a read-only view of the memory-mapped shard."""
        span = self._of_store(clip).frames
        if span is None:
            raise self._lacks(clip, FRAMES)
        if span.shard not in self._mapped:
            shape = (self._shards[span.shard].frames, self.height, self.width, 3)
            mapped = load_memmap(self.root / span.shard, "fetch or write the clip store again")
            if mapped.shape != shape or mapped.dtype != np.uint8:
                raise MaskcastError(
                    f"{self.root / span.shard}: holds {mapped.dtype} {mapped.shape}, not uint8 {shape}"
                )
            self._mapped[span.shard] = np.asarray(mapped)  # slicing a np.memmap is 20 times slower
        return self._mapped[span.shard][span.start : span.start + span.size]

    def stored_frames(self, clip: Clip) -> StoredFrames:
        """Returns the frames for the writer of another store, which links their shard."""
        frames_THWC, span = self.frames(clip), self._of_store(clip).frames
        assert span is not None
        return StoredFrames(frames_THWC, self.root / span.shard, span.start, asdict(self._shards[span.shard]))

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the masks (T, H, W) of the chosen map in a slice of the frames; see `LabelMap` for the values.

        Only the chunks that hold these frames are decompressed.
        """
        chosen = self.label_map
        return self._unpack(clip, masks_layer(chosen.name), "masks", frames, DTYPES[chosen.kind])

    def confidence(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the confidence of each mask pixel in a slice of the frames, (T, H, W) uint8; 255 is certain."""
        return self._unpack(clip, confidence_layer(self.label_map.name), "confidence", frames, np.uint8)

    def verify(self) -> None:
        """Reads all shards and compares their sha256 with the index.

        Raises:
            MaskcastError: names the first shard that differs or cannot be read.
        """
        for name, shard in self._shards.items():
            with parsing(self.root / name, "a readable shard", "fetch or write it again"):
                digest = sha256_of(self.root / name)
            if digest != shard.sha256:
                raise MaskcastError(
                    f"{self.root / name}: contents differ from index.json; fetch or write it again"
                )

    def _known(self, name: str) -> LabelMap:
        if name not in self.maps:
            have = ", ".join(self.maps)
            raise MaskcastError(
                f"{self.root}: no label map {name!r}; it has {have}: choose one of them (label_map)"
            )
        return self.maps[name]

    def _of_store(self, clip: Any) -> Clip:
        """Returns the clip; for one of another store, such as the masks', this store's clip with its id."""
        if isinstance(clip, Clip):
            return clip if clip.store == self.digest else self.get(clip.id)
        raise MaskcastError(
            f"{self.root}: got {short_repr(clip)}, not a clip; use one from `get`, `select` or `clips`"
        )

    def _lacks(self, clip: Clip, layer: str) -> MaskcastError:
        of = f" of map {self.label_map.name!r}" if len(self.maps) > 1 and layer != FRAMES else ""
        return MaskcastError(
            f"{self.root}: clip {clip.id!r} has no {layer}{of}; use a clip or store that has them"
        )

    def _unpack(self, clip: Clip, layer: str, word: str, frames: slice, dtype: type) -> np.ndarray:
        clip = self._of_store(clip)
        packed = clip.layers.get(layer)
        if packed is None:
            raise self._lacks(clip, word)
        wanted = range(clip.num_frames)[frames]
        shape = (len(wanted), self.height, self.width)
        try:
            out: np.ndarray = np.empty(shape, dtype)
        except (MemoryError, ValueError):
            raise MaskcastError(
                f"{self.root}: {word} of clip {clip.id!r}, {shape}, do not fit into memory; read fewer frames at "
                "once"
            ) from None
        with parsing(self.root / packed.shard, f"sound {word} of clip {clip.id!r}", "write the store again"):
            decompress_frames(partial(self._chunk, packed), packed.chunk_frames, clip.num_frames, wanted, out)
            if word == "masks" and self.label_map.kind == "classes":
                self._check_ids(out)
        return out

    def _check_ids(self, masks_THW: np.ndarray) -> None:
        """Refuses class ids out of range, which would otherwise reach losses and metrics."""
        if masks_THW.max(initial=0) < self.num_classes:
            return
        shifted_THW = masks_THW + np.uint8(1)  # IGNORE (255), which is allowed, wraps to 0
        if (most := int(shifted_THW.max())) > self.num_classes:
            raise ValueError(f"class id {most - 1} among {self.num_classes} classes")

    def _chunk(self, packed: LayerSpan, number: int) -> memoryview:
        if packed.shard not in self._bytes:
            mapped: Any = np.memmap(self.root / packed.shard, np.uint8, "r")
            self._bytes[packed.shard] = memoryview(mapped)
        start = packed.starts[number]
        return self._bytes[packed.shard][start : start + packed.chunks[number]]


def _read_index(path: Path) -> bytes:
    if not path.is_file():
        raise MaskcastError(f"{path}: no clip store found; give the folder that prepare_clips wrote")
    return read_file(path)
