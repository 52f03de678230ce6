"""Appends the layers of clips to the shards of a clip store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from maskcast.data.clip_store.compression import CompressedLayer, frames_per_chunk
from maskcast.data.clip_store.table import FrameSpan, LayerSpan, StoredFrames
from maskcast.writing import link

SHARD_BYTES = 1 << 30  # few files for S3, yet small enough to fetch again after a broken transfer


class FrameShardWriter:
    """Appends frames to ``frames-<n>.npy`` files; the number of rows is written when a shard is closed.

    Args:
        root: folder of the store.
        height: of the frames.
        width: of the frames.
        on_complete: is called with the name of each complete shard; not of linked ones.
    """

    HEADER = 128  # bytes; fixed, as the header is overwritten when a shard is closed

    def __init__(self, root: Path, height: int, width: int, on_complete: Callable[[str], None]) -> None:
        self.root, self.row, self._on_complete = root, (height, width, 3), on_complete
        self.shards: dict[str, dict[str, Any]] = {}
        self._linked: dict[Path, str] = {}
        self._file: BinaryIO | None = None
        self._name, self._rows = "", 0

    def append(self, frames: np.ndarray | StoredFrames) -> FrameSpan:
        """Appends the frames of a clip, (T, H, W, 3) uint8; the whole shard of stored ones is linked, once."""
        if isinstance(frames, StoredFrames):
            if frames.shard not in self._linked:
                name = self._linked[frames.shard] = self._new_shard(frames.entry)
                link(frames.shard, self.root / name)
            return FrameSpan(self._linked[frames.shard], frames.start, len(frames.frames_THWC))
        if self._file is None or self._rows * int(np.prod(self.row)) + frames.nbytes > SHARD_BYTES:
            self.close()
            self._name, self._rows = self._new_shard({}), 0
            self._file = (self.root / self._name).open("wb")
            self._file.write(bytes(self.HEADER))
        start = self._rows
        self._file.write(np.ascontiguousarray(frames).data)
        self._rows += len(frames)
        return FrameSpan(self._name, start, len(frames))

    def close(self) -> None:
        """Closes the last shard; once that has failed, e.g. on a full disk, there is nothing left to close."""
        if self._file is None:
            return
        file, self._file = self._file, None
        shape = (self._rows, *self.row)
        text = repr({"descr": "|u1", "fortran_order": False, "shape": shape})
        header = b"\x93NUMPY\x01\x00" + (self.HEADER - 10).to_bytes(2, "little")
        with file:
            file.seek(0)
            file.write(header + text.ljust(self.HEADER - 11).encode("ascii") + b"\n")
        self.shards[self._name]["frames"] = self._rows
        self._on_complete(self._name)

    def _new_shard(self, entry: dict[str, Any]) -> str:
        name = f"frames-{len(self.shards):05d}.npy"
        self.shards[name] = dict(entry)
        return name


class LayerShardWriter:
    """Appends compressed layers to ``<layer>-<n>.zst`` files.

    Args:
        root: folder of the store.
        layer: name of the layer.
        on_complete: is called with the name of each complete shard.
    """

    def __init__(self, root: Path, layer: str, on_complete: Callable[[str], None]) -> None:
        self.root, self.stem, self._on_complete = root, layer.replace("/", "-"), on_complete
        self.shards: dict[str, dict[str, Any]] = {}
        self._file: BinaryIO | None = None
        self._name, self._bytes = "", 0

    def append(self, layer: CompressedLayer) -> LayerSpan:
        """Appends a layer of a clip."""
        sizes = tuple(map(len, layer.chunks))
        if self._file is None or self._bytes + sum(sizes) > SHARD_BYTES:
            self.close()
            self._name, self._bytes = f"{self.stem}-{len(self.shards):05d}.zst", 0
            self._file = (self.root / self._name).open("wb")
            self.shards[self._name] = {}
        start = self._bytes
        for chunk in layer.chunks:
            self._bytes += self._file.write(chunk)
        return LayerSpan(self._name, start, sizes, frames_per_chunk(*layer.shape[1:]))

    def close(self) -> None:
        """Closes the last shard."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()
            self._on_complete(self._name)
