"""The clip store: a few large shards and an index; frames memory-mapped, masks zstd-compressed per clip.

    index.json        sizes, classes, clips, shards with their sha256, what was skipped and why
    frames-00000.npy  uint8 (N, H, W, 3): the frames of many clips one after the other
    masks-00000.zst   one zstd frame per clip: uint8 (T, H, W) class ids in C order
    README.md         how to read all this without maskcast

The index tells a labelled (true masks), an unlabelled and a hidden clip apart. A store may hold masks without
frames (generated masks, forecasts) and, per mask, a confidence of the same shape.
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError

FORMAT = "maskcast-clips/1"


@dataclass(frozen=True)
class Span:
    """Where one layer of a clip lies: frames count rows of a shard, compressed layers count bytes."""

    shard: str
    start: int
    size: int


@dataclass(frozen=True)
class Clip:
    """One clip as the index lists it."""

    id: str
    split: str
    kind: str
    num_frames: int
    frames: Span | None = None
    masks: Span | None = None
    confidence: Span | None = None
    meta: dict[str, Any] = field(default_factory=dict, hash=False)

    @property
    def has_frames(self) -> bool:
        """Whether the store holds its RGB frames."""
        return self.frames is not None

    @property
    def has_masks(self) -> bool:
        """Whether the store holds masks of it."""
        return self.masks is not None

    @property
    def has_confidence(self) -> bool:
        """Whether the store holds a confidence per mask pixel."""
        return self.confidence is not None


class ClipStore:
    """Reads a clip store.

    Args:
        root: the folder with ``index.json``.

    Raises:
        MaskcastError: if the index or a shard is missing, cut short or of another format.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        raw = _read_index(root / "index.json")
        index = _parse(raw, root / "index.json")
        self.height: int = index["height"]
        self.width: int = index["width"]
        self.classes: tuple[str, ...] = tuple(index["classes"])
        self.meta: dict[str, Any] = index["meta"]
        self.skipped: list[dict[str, str]] = index["skipped"]
        self.clips: tuple[Clip, ...] = _clips(index, root / "index.json")
        self.digest = hashlib.sha256(raw).hexdigest()[:32]
        self._shards: dict[str, dict[str, Any]] = index["shards"]
        self._maps: dict[str, np.ndarray] = {}
        for name, shard in self._shards.items():
            path = root / name
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise MaskcastError(f"{path}: shard is missing or cut short; write the clip store again")

    @property
    def num_classes(self) -> int:
        """The number of classes, background included."""
        return len(self.classes)

    @cached_property
    def _by_id(self) -> dict[str, Clip]:
        return {clip.id: clip for clip in self.clips}

    def get(self, clip_id: str) -> Clip:
        """Returns the clip with this id.

        Raises:
            MaskcastError: if there is none.
        """
        if clip_id not in self._by_id:
            raise MaskcastError(f"{self.root}: no clip {clip_id!r} among its {len(self.clips)}; see index.json")
        return self._by_id[clip_id]

    def __contains__(self, clip_id: str) -> bool:
        return clip_id in self._by_id

    def select(self, split: str | None = None, kind: str | None = None) -> list[Clip]:
        """Returns the clips of a split and kind, in the order of the index.

        Raises:
            MaskcastError: if there is none; the line names what the store holds.
        """
        found = [c for c in self.clips if split in (None, c.split) and kind in (None, c.kind)]
        if not found:
            wanted = " ".join(word for word in (kind, "clips", f"in split {split!r}" if split else "") if word)
            have = ", ".join(sorted({f"{c.split} ({c.kind})" for c in self.clips})) or "nothing"
            raise MaskcastError(f"{self.root}: holds no {wanted}; it has {have}: prepare clips of that split")
        return found

    def frames(self, clip: Clip) -> np.ndarray:
        """Returns the frames, (T, H, W, 3) uint8, as a read-only view of the memory-mapped shard."""
        span = self._span(clip, clip.frames, "frames")
        if span.shard not in self._maps:
            shape = (self._shards[span.shard]["frames"], self.height, self.width, 3)
            mapped = _map(self.root / span.shard)
            if mapped.shape != shape or mapped.dtype != np.uint8:
                raise MaskcastError(
                    f"{self.root / span.shard}: holds {mapped.dtype} {mapped.shape}, not uint8 {shape}"
                )
            self._maps[span.shard] = mapped
        return self._maps[span.shard][span.start : span.start + span.size]

    def masks(self, clip: Clip) -> np.ndarray:
        """Returns the masks, (T, H, W) uint8 class ids; ``IGNORE`` marks pixels without a label."""
        return self._decompress(clip, self._span(clip, clip.masks, "masks"))

    def confidence(self, clip: Clip) -> np.ndarray:
        """Returns the confidence of each mask pixel, (T, H, W) uint8, 255 = certain."""
        return self._decompress(clip, self._span(clip, clip.confidence, "confidence"))

    def verify(self) -> None:
        """Reads every shard once and compares its sha256 with the index.

        Raises:
            MaskcastError: naming the first shard that differs.
        """
        for name, shard in self._shards.items():
            if sha256_of(self.root / name) != shard["sha256"]:
                raise MaskcastError(
                    f"{self.root / name}: contents differ from index.json; fetch or write it again"
                )

    def _span(self, clip: Clip, span: Span | None, layer: str) -> Span:
        if span is None:
            raise MaskcastError(f"{self.root}: clip {clip.id!r} has no {layer}; use a clip or store that has them")
        return span

    def _decompress(self, clip: Clip, span: Span) -> np.ndarray:
        shape = (clip.num_frames, self.height, self.width)
        with (self.root / span.shard).open("rb") as shard:
            shard.seek(span.start)
            packed = shard.read(span.size)
        try:
            data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=int(np.prod(shape)))
            return np.frombuffer(data, np.uint8).reshape(shape)
        except (zstandard.ZstdError, ValueError) as error:
            raise MaskcastError(
                f"{self.root / span.shard}: masks of clip {clip.id!r} are damaged ({error}); write the store again"
            ) from None


def _read_index(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise MaskcastError(f"{path}: no clip store there; give the folder that prepare_clips wrote") from None


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        index = json.loads(raw)
        missing = {"format", "height", "width", "classes", "meta", "clips", "shards", "skipped"} - set(index)
    except (ValueError, TypeError) as error:
        raise MaskcastError(f"{path}: not a valid index ({error}); write the clip store again") from None
    if missing or index["format"] != FORMAT:
        raise MaskcastError(f"{path}: not a {FORMAT} index (lacks {sorted(missing)}); write the clip store again")
    return index


def _clips(index: dict[str, Any], path: Path) -> tuple[Clip, ...]:
    """Returns the clips of an index whose layers lie in shards that it lists, files beside it."""
    try:
        clips = tuple(_clip(entry) for entry in index["clips"])
        spans = [span for clip in clips for span in (clip.frames, clip.masks, clip.confidence) if span]
        sound = all(span.shard in index["shards"] for span in spans)
        sound &= all(
            Path(name).name == name and {"bytes", "sha256"} <= set(index["shards"][name])
            for name in index["shards"]
        )
    except (KeyError, TypeError) as error:
        raise MaskcastError(f"{path}: not a valid index ({error!r}); write the clip store again") from None
    if not sound:
        raise MaskcastError(
            f"{path}: names a shard that it does not list as a file beside it; write the store again"
        )
    return clips


def _clip(entry: dict[str, Any]) -> Clip:
    spans = {layer: Span(**entry[layer]) if entry[layer] else None for layer in ("frames", "masks", "confidence")}
    return Clip(entry["id"], entry["split"], entry["kind"], entry["num_frames"], **spans, meta=entry["meta"])


def _map(shard: Path) -> np.ndarray:
    try:
        return np.load(shard, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        raise MaskcastError(f"{shard}: damaged, no array to map; fetch or write the clip store again") from None
