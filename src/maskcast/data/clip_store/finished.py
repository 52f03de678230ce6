"""Finished clips of a run that may be killed: one small file each, until all of them are there."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskcast.data.clip_store.packing import PackedLayer
from maskcast.reading import content_of, parsing


@dataclass(frozen=True)
class FinishedClip:
    """Masks and confidence of a clip by the name of their map, compressed, and JSON about them."""

    masks: dict[str, PackedLayer]
    confidence: dict[str, PackedLayer]
    meta: dict[str, Any]


class FinishedClips:
    """Clips numbered from 0 on.

    Args:
        folder: survives the run; see ``outputs.resume_dir``.
        fingerprint: names everything the run depends on; clips of another fingerprint are never picked up.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder / fingerprint
        self.folder.mkdir(parents=True, exist_ok=True)

    def count(self, most: int) -> int:
        """Returns how many of the first ``most`` clips are there before the first that is missing."""
        return next((index for index in range(most) if not self.has(index)), most)

    def has(self, index: int) -> bool:
        """Whether a clip is there."""
        return self._path(index).exists()

    def save(self, index: int, clip: FinishedClip) -> None:
        """Writes a clip; it is there whole or not at all."""
        layers = {"masks": clip.masks, "confidence": clip.confidence}
        head = {part: {name: _head(layer) for name, layer in given.items()} for part, given in layers.items()}
        data = b"".join(chunk for given in layers.values() for layer in given.values() for chunk in layer.chunks)
        partial = self._path(index).with_suffix(".partial")
        partial.write_bytes(json.dumps(head | {"meta": clip.meta}).encode() + b"\n" + data)
        partial.replace(self._path(index))

    def load(self, index: int) -> FinishedClip:
        """Returns a clip that was saved, as it was.

        Raises:
            MaskcastError: if its file is damaged.
        """
        path = self._path(index)
        raw = io.BytesIO(content_of(path))
        with raw as file, parsing(path, "a finished clip", f"remove {self.folder} and run the stage again"):
            head = json.loads(file.readline())

            def layers(part: str) -> dict[str, PackedLayer]:
                found = {}
                for name, one in head[part].items():
                    chunks = tuple(file.read(size) for size in one["chunks"])
                    if list(map(len, chunks)) != one["chunks"]:
                        raise ValueError("it is cut short")
                    found[name] = PackedLayer(chunks, tuple(one["shape"]), one["dtype"])
                return found

            return FinishedClip(layers("masks"), layers("confidence"), head["meta"])

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:07d}.clip"


def _head(layer: PackedLayer) -> Mapping[str, Any]:
    return {"chunks": list(map(len, layer.chunks)), "shape": layer.shape, "dtype": layer.dtype}
