"""Masks and confidences as bytes: each chunk of frames is one zstd frame.

Legend: T frames, H rows, W columns.
"""

from dataclasses import dataclass

import numpy as np
import zstandard

CHUNK_BYTES = 1 << 18  # of a chunk before it is compressed, at a byte a pixel


@dataclass(frozen=True)
class PackedLayer:
    """A compressed layer of a clip.

    Attributes:
        chunks: zstd frames, each of ``frames_per_chunk`` frames in C order, the last one of the rest.
        shape: T, H, W.
        dtype: of a pixel, as numpy names it.
    """

    chunks: tuple[bytes, ...]
    shape: tuple[int, ...]
    dtype: str

    def __len__(self) -> int:
        return self.shape[0]


class LayerPacker:
    """Compresses a layer that comes in pieces, of any length each: the bytes do not depend on how it was cut."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._chunks: list[bytes] = []
        self._rest: np.ndarray | None = None  # frames that do not fill a chunk yet
        self._frames = 0

    def add(self, piece_THW: np.ndarray) -> None:
        """Takes the next frames of the layer."""
        self._frames += len(piece_THW)
        waiting_THW = piece_THW if self._rest is None else np.concatenate([self._rest, piece_THW])
        step = frames_per_chunk(*piece_THW.shape[1:])
        whole = len(waiting_THW) - len(waiting_THW) % step
        self._compress(waiting_THW[:whole], step)
        self._rest = waiting_THW[whole:].copy()  # a view would keep the piece

    def finish(self) -> PackedLayer:
        """Returns the layer; at least one piece came before."""
        assert self._rest is not None
        self._compress(self._rest, max(1, len(self._rest)))  # nothing is left where chunks divide the frames
        shape = (self._frames, *self._rest.shape[1:])
        return PackedLayer(tuple(self._chunks), shape, self._rest.dtype.name)

    def _compress(self, frames_THW: np.ndarray, step: int) -> None:
        for start in range(0, len(frames_THW), step):
            chunk_tHW = np.ascontiguousarray(frames_THW[start : start + step])
            self._chunks.append(self._compressor.compress(chunk_tHW.data))


def frames_per_chunk(height: int, width: int) -> int:
    """Returns how many frames of this size make a chunk."""
    return max(1, CHUNK_BYTES // (height * width))


def packed(layer_THW: np.ndarray | PackedLayer) -> PackedLayer:
    """Compresses a layer that is there at once; what is compressed already stays as it is."""
    if isinstance(layer_THW, PackedLayer):
        return layer_THW
    packer = LayerPacker()
    packer.add(layer_THW)
    return packer.finish()
