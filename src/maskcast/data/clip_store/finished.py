"""Finished clips of a run that may be killed, kept in one small file each until the run is complete.

A file begins with a line with the sha256 of the rest. So none needs to be on the disk before it gets its name,
which takes longer than writing it: after a power loss, those that are not whole count as missing.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskcast.data.clip_store.compression import CompressedLayer
from maskcast.reading import parsing, read_file


@dataclass(frozen=True)
class FinishedClip:
    """Compressed masks and confidence of a clip, by the name of their label map, and JSON about them."""

    masks: dict[str, CompressedLayer]
    confidence: dict[str, CompressedLayer]
    meta: dict[str, Any]


class FinishedClips:
    """The finished clips of a run, numbered from 0; files that are not whole are removed.

    Args:
        folder: kept after the run ends (see ``outputs.resume_dir``).
        fingerprint: identifies all that the run depends on; clips with another fingerprint are ignored.

    Raises:
        MaskcastError: if a file cannot be read.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in self.folder.glob("*.clip"):
            digest, _, content = self._read(path).partition(b"\n")
            if digest != _digest(content):
                path.unlink()

    def count(self, most: int) -> int:
        """Returns how many of the first ``most`` clips exist, counted up to the first missing one."""
        return next((index for index in range(most) if not self.has(index)), most)

    def has(self, index: int) -> bool:
        """Whether a clip is finished."""
        return self._path(index).exists()

    def save(self, index: int, clip: FinishedClip) -> None:
        """Writes a clip atomically."""
        layers = {"masks": clip.masks, "confidence": clip.confidence}
        head = {part: {name: _header(layer) for name, layer in given.items()} for part, given in layers.items()}
        data = b"".join(chunk for given in layers.values() for layer in given.values() for chunk in layer.chunks)
        content = json.dumps(head | {"meta": clip.meta}).encode() + b"\n" + data
        partial = self._path(index).with_suffix(".partial")
        partial.write_bytes(_digest(content) + b"\n" + content)
        partial.replace(self._path(index))

    def load(self, index: int) -> FinishedClip:
        """Returns a clip as it was saved.

        Raises:
            MaskcastError: if its file is damaged.
        """
        path = self._path(index)
        raw = io.BytesIO(self._read(path))
        with raw as file, parsing(path, "a finished clip", self._remedy):
            file.readline()  # the digest, which was compared
            head = json.loads(file.readline())

            def layers(part: str) -> dict[str, CompressedLayer]:
                found = {}
                for name, one in head[part].items():
                    chunks = tuple(file.read(size) for size in one["chunks"])
                    if list(map(len, chunks)) != one["chunks"]:
                        raise ValueError("it is cut short")
                    found[name] = CompressedLayer(chunks, tuple(one["shape"]), one["dtype"])
                return found

            return FinishedClip(layers("masks"), layers("confidence"), head["meta"])

    def _read(self, path: Path) -> bytes:
        return read_file(path, "finished clip", self._remedy)

    @property
    def _remedy(self) -> str:
        return f"remove {self.folder} and run the stage again"

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:07d}.clip"


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def _header(layer: CompressedLayer) -> Mapping[str, Any]:
    return {"chunks": list(map(len, layer.chunks)), "shape": layer.shape, "dtype": layer.dtype}
