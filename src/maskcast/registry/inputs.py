"""Checks inputs of registered models: type, shape and, for requests from outside, size."""

import math
from typing import Any

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.reading import as_array

MAX_BYTES = 64 << 20  # per request from outside; it bounds a server's memory, which is a small multiple of it
MAX_FRAMES = 4096  # per request, because many frames take long even if they are tiny
MAX_JSON = 16 << 20  # most bytes of JSON read and numbers written, as Python objects take far more memory

Shape = tuple[int, ...]  # with batch axis; -1 is any length of at least 1


def check_request_size(shape: Shape, shape_in: Shape, shape_out: Shape) -> int:
    """Checks the size of a request from outside, and returns how many numbers its response has.

    Args:
        shape: of the input, which ``as_batch`` checks.
        shape_in: see ``as_batch``; the last two of its variable lengths are rows and columns.
        shape_out: of the output.

    Raises:
        MaskcastError: input or output is too large; the message names the limit.
    """
    full = (1, *shape) if len(shape) == len(shape_in) - 1 else shape
    variable = [length for length, expected in zip(full, shape_in, strict=False) if expected < 0]
    batch, *size = (*variable[:1], *variable[-2:]) if len(variable) > 2 else (1, 1, 1)
    lengths = iter((batch, *size))
    output = math.prod(next(lengths) if length < 0 else length for length in shape_out)
    if max(math.prod(shape), output) > MAX_BYTES or math.prod(variable[:-2]) > MAX_FRAMES:
        raise MaskcastError(
            f"shape {shape}: input and output are limited to {MAX_BYTES >> 20} MiB and {MAX_FRAMES} frames per "
            "call; give fewer clips, or smaller frames"
        )
    return output


def as_batch(data: Any, shape: Shape, what: str) -> tuple[np.ndarray, bool]:
    """Returns uint8 data with a batch axis, and whether that axis was added.

    Args:
        data: an array, or nested lists.
        shape: expected shape with batch axis; -1 is any length of at least 1.
        what: name of the data in errors.

    Raises:
        MaskcastError: if type or shape are wrong; the message names the right ones.
    """
    axes = ", ".join("any" if length < 0 else str(length) for length in shape)
    wanted = f"uint8 of shape ({axes}), or one sample without the first axis"
    array = as_array(data, what, wanted)
    alone = array.ndim == len(shape) - 1
    found = array[None] if alone else array
    fits = found.ndim == len(shape) and all(
        have == want if want > 0 else have > 0 for have, want in zip(found.shape, shape, strict=False)
    )
    if array.dtype != np.uint8 or not fits:
        empty = ", and at least one of each" if 0 in array.shape else ""
        raise MaskcastError(f"{what}: got {array.dtype} of shape {array.shape}; give {wanted}{empty}")
    return found, alone
