"""Compresses masks and confidences: each chunk of frames is one zstd frame.

Legend: T frames, H rows, W columns.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import zstandard

CHUNK_BYTES = 1 << 18  # per chunk before compression, at one byte per pixel
_of_thread = threading.local()  # a decompressor must not be shared between threads


@dataclass(frozen=True)
class CompressedLayer:
    """A compressed layer of a clip.

    Attributes:
        chunks: zstd frames. Each holds ``frames_per_chunk`` frames in C order; the last holds the rest.
        shape: T, H, W.
        dtype: numpy's name of the dtype of a pixel.
    """

    chunks: tuple[bytes, ...]
    shape: tuple[int, ...]
    dtype: str

    def __len__(self) -> int:
        return self.shape[0]


class LayerCompressor:
    """Compresses a layer that arrives in pieces; the result does not depend on the lengths of the pieces."""

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True)
        self._chunks: list[bytes] = []
        self._rest: np.ndarray | None = None  # frames that do not yet fill a chunk
        self._frames = 0

    def add(self, piece_THW: np.ndarray) -> None:
        """Adds the next frames of the layer."""
        self._frames += len(piece_THW)
        waiting_THW = piece_THW if self._rest is None else np.concatenate([self._rest, piece_THW])
        step = frames_per_chunk(*piece_THW.shape[1:])
        whole = len(waiting_THW) - len(waiting_THW) % step
        self._compress(waiting_THW[:whole], step)
        self._rest = waiting_THW[whole:].copy()  # a view would keep the whole piece in memory

    def finish(self) -> CompressedLayer:
        """Returns the layer; at least one piece must have been added."""
        assert self._rest is not None
        self._compress(self._rest, max(1, len(self._rest)))  # empty if the chunks divide the frames evenly
        shape = (self._frames, *self._rest.shape[1:])
        return CompressedLayer(tuple(self._chunks), shape, self._rest.dtype.name)

    def _compress(self, frames_THW: np.ndarray, step: int) -> None:
        for start in range(0, len(frames_THW), step):
            chunk_tHW = np.ascontiguousarray(frames_THW[start : start + step])
            self._chunks.append(self._compressor.compress(chunk_tHW.data))


def decompress_frames(
    chunk_of: Callable[[int], memoryview], chunk_frames: int, num_frames: int, wanted: range, out_THW: np.ndarray
) -> None:
    """Decompresses some frames of a layer; reads only the chunks that hold them.

    Args:
        chunk_of: returns the bytes of a chunk, given its index.
        chunk_frames: number of frames of a chunk.
        num_frames: number of frames of the layer.
        wanted: indices of the frames.
        out_THW: where the frames are written.

    Raises:
        ValueError: if a chunk does not have the size that its frames need.
        zstandard.ZstdError: if a chunk is damaged.
    """
    done = 0
    while done < len(wanted):
        number = wanted[done] // chunk_frames
        chunk = range(number * chunk_frames, min((number + 1) * chunk_frames, num_frames))
        ahead = chunk.stop - 1 - wanted[done] if wanted.step > 0 else wanted[done] - chunk.start
        own = wanted[done : done + ahead // abs(wanted.step) + 1]
        if own == chunk:
            decompress_into(chunk_of(number), out_THW[done : done + len(own)])
        else:
            chunk_THW: np.ndarray = np.empty((len(chunk), *out_THW.shape[1:]), out_THW.dtype)
            decompress_into(chunk_of(number), chunk_THW)
            out_THW[done : done + len(own)] = chunk_THW[[t - chunk.start for t in own]]
        done += len(own)


def decompress_into(chunk: memoryview, frames_THW: np.ndarray) -> None:
    """Decompresses a chunk directly into the memory of an array.

    Args:
        chunk: one zstd frame.
        frames_THW: an array for exactly the frames of the chunk, in C order.

    Raises:
        ValueError: if the chunk has another size.
        zstandard.ZstdError: if the chunk is damaged.
    """
    if zstandard.frame_content_size(chunk) != frames_THW.nbytes:  # a damaged header may claim terabytes
        raise ValueError(f"a chunk does not hold {frames_THW.nbytes} bytes")
    if not hasattr(_of_thread, "decompressor"):  # creating one takes as long as decompressing a chunk
        _of_thread.decompressor = zstandard.ZstdDecompressor()
    with _of_thread.decompressor.stream_reader(chunk) as reader:
        read = reader.readinto(frames_THW.reshape(-1).view(np.uint8).data)
    if read != frames_THW.nbytes:
        raise ValueError(f"a chunk ends after {read} of {frames_THW.nbytes} bytes")


def frames_per_chunk(height: int, width: int) -> int:
    """Returns the number of frames of this size in a chunk."""
    return max(1, CHUNK_BYTES // (height * width))


def decompress(layer: CompressedLayer, frames: slice) -> np.ndarray:
    """Returns some frames of a compressed layer in memory."""
    wanted = range(len(layer))[frames]
    out_THW: np.ndarray = np.empty((len(wanted), *layer.shape[1:]), layer.dtype)
    chunk_frames = frames_per_chunk(*layer.shape[1:])
    decompress_frames(lambda number: memoryview(layer.chunks[number]), chunk_frames, len(layer), wanted, out_THW)
    return out_THW


def compress(layer_THW: np.ndarray | CompressedLayer) -> CompressedLayer:
    """Compresses a whole layer; a layer that is compressed already is returned as it is."""
    if isinstance(layer_THW, CompressedLayer):
        return layer_THW
    packer = LayerCompressor()
    packer.add(layer_THW)
    return packer.finish()
