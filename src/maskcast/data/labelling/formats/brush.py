"""Run-length encoding of brush regions in Label Studio (that of the JavaScript package rle-pack).

A bit stream: 32 bits for the number of values, 5 for the bits per value - 1, four times 4 for the bits per run
length - 1. Blocks follow: one bit says whether a single value is repeated; 2 bits choose one of the four sizes;
then the run length - 1, and one value or as many values as the run is long. The values are RGBA pixels, row by
row. A pixel is labelled if its opacity is not 0.

Legend: H height, W width.
"""

from collections.abc import Sequence

import numpy as np

from maskcast.data.images import Size
from maskcast.errors import MaskcastError

LENGTH_BITS = (3, 4, 8, 16)


def decode(data: Sequence[int], size: Size, where: str) -> np.ndarray:
    """Returns the labelled pixels, (H, W) bool.

    Raises:
        MaskcastError: the data has more or fewer pixels than the frame, or ends early.
    """
    if not isinstance(data, list) or not all(type(byte) is int and 0 <= byte < 256 for byte in data):
        raise MaskcastError(f"{where}: rle must be a list of bytes, 0 to 255; export it again")
    stream = _BitReader(np.unpackbits(np.array(data, np.uint8)), where)
    num_values, word_size = stream.number(32), stream.number(5) + 1
    lengths = [stream.number(4) + 1 for _ in LENGTH_BITS]
    if num_values != 4 * size[0] * size[1]:
        raise MaskcastError(
            f"{where}: rle has {num_values} values, a frame of {size[1]}x{size[0]} has {4 * size[0] * size[1]}; "
            "export it again"
        )
    values = np.empty(num_values, np.uint64)
    position = 0
    while position < num_values:
        repeats = stream.number(1)
        count = 1 + stream.number(lengths[stream.number(2)])
        if position + count > num_values:
            raise MaskcastError(
                f"{where}: rle has more than the {num_values} values of its header; export it again"
            )
        values[position : position + count] = (
            stream.number(word_size) if repeats else stream.numbers(count, word_size)
        )
        position += count
    return values.reshape(*size, 4)[..., 3] > 0


def encode(mask_HW: np.ndarray) -> list[int]:
    """Returns a mask (H, W) bool as run lengths; all four channels are 0 or 255."""
    values = np.repeat(mask_HW.ravel(), 4).astype(np.uint8) * 255
    ends = np.append(np.flatnonzero(values[1:] != values[:-1]) + 1, len(values))
    blocks = [f"{len(values):032b}{7:05b}" + "".join(f"{bits - 1:04b}" for bits in LENGTH_BITS)]
    start = 0
    for end in ends.tolist():
        value = f"{values[start]:08b}"
        while start < end:
            count = min(end - start, 1 << LENGTH_BITS[-1])
            choice = next(k for k, bits in enumerate(LENGTH_BITS) if count <= 1 << bits)
            blocks.append(f"1{choice:02b}{count - 1:0{LENGTH_BITS[choice]}b}{value}")
            start += count
    bits = np.frombuffer("".join(blocks).encode("ascii"), np.uint8) - ord("0")
    return np.packbits(bits).tolist()


class _BitReader:
    """Reads numbers from a bit stream, most significant bit first."""

    def __init__(self, bits: np.ndarray, where: str) -> None:
        self._bits, self._where, self._at = bits, where, 0

    def number(self, size: int) -> int:
        """Returns the number in the next ``size`` bits."""
        return int(self.numbers(1, size)[0])

    def numbers(self, count: int, size: int) -> np.ndarray:
        """Returns the next ``count`` numbers of ``size`` bits, uint64."""
        end = self._at + count * size
        if end > len(self._bits):
            raise MaskcastError(f"{self._where}: rle ends early; export it again")
        weights = np.uint64(1) << np.arange(size - 1, -1, -1, dtype=np.uint64)
        bits = self._bits[self._at : end].reshape(count, size).astype(np.uint64)
        self._at = end
        return bits @ weights
