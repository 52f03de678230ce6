"""Writes a clip store (see ``clips.py`` for its form)."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import zstandard

from maskcast.data.clips import FORMAT, Clip, Span
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, KINDS, SPLITS

SHARD_BYTES = 1 << 30  # few enough files for S3, small enough to fetch again after a broken transfer

README = """# A maskcast clip store

Readable with numpy, json and zstandard alone:

```python
import json, pathlib, numpy as np, zstandard
index = json.loads(pathlib.Path("index.json").read_text())
clip = index["clips"][0]
span = clip["frames"]                                  # null where the store holds no frames
frames = np.load(span["shard"], mmap_mode="r")[span["start"] : span["start"] + span["size"]]  # (T, H, W, 3) uint8
span = clip["masks"]                                   # null where the clip has no masks
with open(span["shard"], "rb") as f:
    f.seek(span["start"])
    packed = f.read(span["size"])
masks = np.frombuffer(zstandard.ZstdDecompressor().decompress(packed), np.uint8)
masks = masks.reshape(clip["num_frames"], index["height"], index["width"])  # class ids; 255 = no label
```

`kind` tells a labelled (true masks), an unlabelled and a hidden clip apart; `split` says what it may be used
for. `confidence` is stored like `masks`, 255 = certain. `shards` gives the sha256 of each file, `skipped`
lists what was left out and why.
"""


class ClipWriter:
    """Writes a clip store into a new folder; the index comes last, so a half store is never read.

    Args:
        root: the folder to write; must not exist or be empty.
        height: of every frame and mask, pixels.
        width: of every frame and mask, pixels.
        classes: class names in the order of their ids, background first.
        meta: anything worth keeping with the whole store, as JSON values.

    Raises:
        MaskcastError: on frames or masks of another size, dtype or length, on a class id that does not exist,
            on an id used twice, an unknown split or kind, a labelled clip without masks.
    """

    def __init__(
        self,
        root: Path,
        *,
        height: int,
        width: int,
        classes: Sequence[str],
        meta: dict[str, Any] | None = None,
    ) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root, self.height, self.width, self.classes = root, height, width, list(classes)
        self.meta = meta or {}
        self.clips: dict[str, Clip] = {}
        self.skipped: list[dict[str, str]] = []
        self._frames = _FrameShards(root, height, width)
        self._masks = _PackedShards(root, "masks")
        self._confidence = _PackedShards(root, "confidence")
        allowed = np.zeros(256, bool)
        allowed[: len(self.classes)] = allowed[IGNORE] = True
        self._allowed = allowed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shards in (self._frames, self._masks, self._confidence):
            shards.close()
        if error is None:
            self._write_index()

    def add(
        self,
        clip_id: str,
        *,
        split: str,
        kind: str,
        frames: np.ndarray | None = None,
        masks: np.ndarray | None = None,
        confidence: np.ndarray | None = None,
        meta: dict[str, Any] | None = None,
    ) -> None:
        """Adds one clip: frames (T, H, W, 3), masks and confidence (T, H, W), all uint8."""
        self._check(clip_id, split, kind, frames, masks, confidence)
        layer = masks if frames is None else frames
        assert layer is not None
        self.clips[clip_id] = Clip(
            clip_id,
            split,
            kind,
            len(layer),
            None if frames is None else self._frames.append(frames),
            None if masks is None else self._masks.append(masks),
            None if confidence is None else self._confidence.append(confidence),
            meta or {},
        )

    def skip(self, item: str, reason: str) -> None:
        """Records in the index that something was left out, and why."""
        self.skipped.append({"item": item, "reason": reason})

    def _check(self, clip_id: str, split: str, kind: str, *layers: np.ndarray | None) -> None:
        frames, masks, confidence = layers
        if clip_id in self.clips:
            raise MaskcastError(f"clip id {clip_id!r} occurs twice; give every clip an id of its own")
        if split not in SPLITS or kind not in KINDS:
            raise MaskcastError(f"clip {clip_id!r}: split {split!r}, kind {kind!r}; allowed: {SPLITS} and {KINDS}")
        if (kind == "labelled" and masks is None) or (frames is None and masks is None):
            raise MaskcastError(f"clip {clip_id!r} ({kind}) comes without masks; leave it out or give its masks")
        lengths = {len(layer) for layer in layers if layer is not None}
        if len(lengths) > 1 or 0 in lengths:
            raise MaskcastError(f"clip {clip_id!r}: its layers have {sorted(lengths)} frames; they must agree")
        size = (self.height, self.width)
        for name, layer, tail in (
            ("frames", frames, (3,)),
            ("masks", masks, ()),
            ("confidence", confidence, ()),
        ):
            if layer is not None and (layer.dtype != np.uint8 or layer.shape[1:] != size + tail):
                raise MaskcastError(
                    f"clip {clip_id!r}: {name} are {layer.dtype} {layer.shape}; the store holds uint8 "
                    f"{('T', *size, *tail)}: resize them (height and width of prepare_clips)"
                )
        if masks is not None and not self._allowed[masks].all():
            worst = int(masks[~self._allowed[masks]].max())
            raise MaskcastError(
                f"clip {clip_id!r}: class id {worst} is not among the {len(self.classes)} classes (0 to "
                f"{len(self.classes) - 1}, or {IGNORE} for no label); mend the mask or the list of classes"
            )

    def _write_index(self) -> None:
        shards = self._frames.shards | self._masks.shards | self._confidence.shards
        for name, shard in shards.items():
            shard |= {"bytes": (self.root / name).stat().st_size, "sha256": sha256_of(self.root / name)}
        (self.root / "README.md").write_text(README, encoding="utf-8")
        index = {
            "format": FORMAT,
            "height": self.height,
            "width": self.width,
            "classes": self.classes,
            "meta": self.meta,
            "clips": [asdict(clip) for clip in self.clips.values()],
            "skipped": self.skipped,
            "shards": shards,
        }
        partial = self.root / "index.json.partial"
        partial.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        partial.rename(self.root / "index.json")


class _FrameShards:
    """Appends frames to ``frames-<n>.npy`` files; the header's row count is set when a shard is closed."""

    HEADER = 128  # bytes: np.save pads its header to a multiple of 64, ours always to this

    def __init__(self, root: Path, height: int, width: int) -> None:
        self.root, self.row = root, (height, width, 3)
        self.shards: dict[str, dict[str, Any]] = {}
        self._file: BinaryIO | None = None
        self._name, self._rows = "", 0

    def append(self, frames: np.ndarray) -> Span:
        if self._file is None or self._rows * int(np.prod(self.row)) + frames.nbytes > SHARD_BYTES:
            self.close()
            self._name, self._rows = f"frames-{len(self.shards):05d}.npy", 0
            self._file = (self.root / self._name).open("wb")
            self._file.write(bytes(self.HEADER))
            self.shards[self._name] = {}
        start = self._rows
        self._file.write(np.ascontiguousarray(frames).data)
        self._rows += len(frames)
        return Span(self._name, start, len(frames))

    def close(self) -> None:
        if self._file is None:
            return
        shape = (self._rows, *self.row)
        text = repr({"descr": "|u1", "fortran_order": False, "shape": shape})
        header = b"\x93NUMPY\x01\x00" + (self.HEADER - 10).to_bytes(2, "little")
        self._file.seek(0)
        self._file.write(header + text.ljust(self.HEADER - 11).encode("ascii") + b"\n")
        self._file.close()
        self.shards[self._name]["frames"] = self._rows
        self._file = None


class _PackedShards:
    """Appends one zstd frame per clip to ``<layer>-<n>.zst`` files."""

    def __init__(self, root: Path, layer: str) -> None:
        self.root, self.layer = root, layer
        self.shards: dict[str, dict[str, Any]] = {}
        self._packer = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._file: BinaryIO | None = None
        self._name, self._bytes = "", 0

    def append(self, layer: np.ndarray) -> Span:
        packed = self._packer.compress(np.ascontiguousarray(layer).data)
        if self._file is None or self._bytes + len(packed) > SHARD_BYTES:
            self.close()
            self._name, self._bytes = f"{self.layer}-{len(self.shards):05d}.zst", 0
            self._file = (self.root / self._name).open("wb")
            self.shards[self._name] = {}
        self._file.write(packed)
        self._bytes += len(packed)
        return Span(self._name, self._bytes - len(packed), len(packed))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
