"""Finished clips of a run that may be killed: one small file each, until all of them are there."""

from pathlib import Path

import numpy as np
import zstandard


class FinishedClips:
    """Masks and confidences, T x H x W uint8, of clips numbered from 0 on.

    Args:
        folder: survives the run; see ``stage.resume_dir``.
        fingerprint: names everything the run depends on; clips of another fingerprint are never picked up.
        size: height and width.
    """

    def __init__(self, folder: Path, fingerprint: str, size: tuple[int, int]) -> None:
        self.folder, self.size = folder / fingerprint, size
        self.folder.mkdir(parents=True, exist_ok=True)

    def count(self, most: int) -> int:
        """Returns how many of the first ``most`` clips are there before the first that is missing."""
        return next((index for index in range(most) if not self._path(index).exists()), most)

    def save(self, index: int, masks_THW: np.ndarray, confidence_THW: np.ndarray) -> None:
        """Writes a clip; it is there whole or not at all."""
        partial = self._path(index).with_suffix(".partial")
        partial.write_bytes(zstandard.ZstdCompressor().compress(np.stack([masks_THW, confidence_THW]).data))
        partial.replace(self._path(index))

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns masks and confidence of a clip that was saved."""
        packed = zstandard.ZstdDecompressor().decompress(self._path(index).read_bytes())
        masks_THW, confidence_THW = np.frombuffer(packed, np.uint8).reshape(2, -1, *self.size)
        return masks_THW, confidence_THW

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:07d}.zst"
