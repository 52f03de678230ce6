"""What a registered model takes: uint8 arrays of a shape, and from outside not too large ones."""

import math
from typing import Any

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.reading import array_of

MAX_BYTES = 64 << 20  # of one call from outside: a server's memory is a small multiple of it, and so is bounded
MAX_FRAMES = 4096  # of the same: clips of a few pixels take long, too
MAX_JSON = 16 << 20  # bytes that are read as JSON, and numbers that are written: objects in memory are far larger

Shape = tuple[int, ...]  # with the batch axis; -1 stands for any length of at least 1


def check_size(shape: Shape, shape_in: Shape, shape_out: Shape) -> int:
    """Makes sure that a call from outside is not too large, and returns how many numbers its answer has.

    Args:
        shape: of what is given; ``batched`` tells whether it fits.
        shape_in: see ``batched``; of the lengths that may be any, the last two are rows and columns.
        shape_out: of what comes of it.

    Raises:
        MaskcastError: what is given or comes of it is too large; the line says what is allowed.
    """
    full = (1, *shape) if len(shape) == len(shape_in) - 1 else shape
    free = [have for have, want in zip(full, shape_in, strict=False) if want < 0]
    batch, *size = (*free[:1], *free[-2:]) if len(free) > 2 else (1, 1, 1)
    lengths = iter((batch, *size))
    made = math.prod(next(lengths) if length < 0 else length for length in shape_out)
    if max(math.prod(shape), made) > MAX_BYTES or math.prod(free[:-2]) > MAX_FRAMES:
        raise MaskcastError(
            f"shape {shape}: one call takes and gives at most {MAX_BYTES >> 20} MiB and {MAX_FRAMES} frames; "
            "give fewer clips, or smaller frames"
        )
    return made


def batched(data: Any, shape: Shape, what: str) -> tuple[np.ndarray, bool]:
    """Returns uint8 data with a batch axis, and whether it came without one.

    Args:
        data: an array, or nested lists.
        shape: with the batch axis; -1 stands for any length of at least 1.
        what: what errors call it.

    Raises:
        MaskcastError: if type or shape differ; the line says what is allowed.
    """
    axes = ", ".join("any" if length < 0 else str(length) for length in shape)
    wanted = f"uint8 of shape ({axes}), or one sample without the first axis"
    array = array_of(data, what, wanted)
    alone = array.ndim == len(shape) - 1
    found = array[None] if alone else array
    fits = found.ndim == len(shape) and all(
        have == want if want > 0 else have > 0 for have, want in zip(found.shape, shape, strict=False)
    )
    if array.dtype != np.uint8 or not fits:
        empty = ", and at least one of each" if 0 in array.shape else ""
        raise MaskcastError(f"{what}: got {array.dtype} of shape {array.shape}; give {wanted}{empty}")
    return found, alone
