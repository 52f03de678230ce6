"""Limits on the memory and the time of one piece of work.

Memory is counted as pixels times the numbers that a network holds per pixel. Larger work is done in pieces; work
that cannot be divided, as a network needs a whole frame, is refused. The pieces depend on shapes only, so that the
same work gives the same bits on every machine. Between two pieces, work that exceeds its time limit, if there is
one, is ended.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from maskcast.errors import MaskcastError

CHUNK_NUMBERS = 2**26
"""Most numbers in memory for work that can be divided: 256 MiB of float32, more than a recipe's batch needs."""
MAX_NUMBERS = 2**29
"""Most numbers for work that cannot be divided: 2 GiB of float32, a 1920x1080 frame in a U-Net of width 64."""
MAX_FUTURES = 1000
"""Most futures that are drawn of a clip: all are kept in memory until they are scored or written."""
_limit: ContextVar[tuple[float, float]] = ContextVar("limit", default=(math.inf, math.inf))
"""The time limit in seconds, and the deadline on the clock of `time.monotonic`."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """A context with a time limit for the work of this thread; ``check_time`` enforces it."""
    token = _limit.set((seconds, time.monotonic() + seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def check_time() -> None:
    """Checks the time limit; to be called between the pieces of long work.

    Raises:
        MaskcastError: the work has exceeded its time limit.
    """
    seconds, end = _limit.get()
    if time.monotonic() > end:
        raise MaskcastError(
            f"frames: the call exceeded its time limit of {seconds:g} s; use fewer clips or smaller frames"
        )


def check_size(name: str, pixels: int, numbers: int) -> None:
    """Checks the size of work that cannot be divided.

    Args:
        name: name of the work, for the error.
        pixels: their number.
        numbers: that are held of each.

    Raises:
        MaskcastError: it is too large; the message names the limit.
    """
    if pixels * numbers > MAX_NUMBERS:
        raise MaskcastError(
            f"{name}: {pixels} pixels, this model supports at most {MAX_NUMBERS // numbers}; use smaller frames"
        )


def frames_at_once(height: int, width: int, numbers: int) -> int:
    """Returns how many frames may go through a network at once.

    Args:
        height: of a frame.
        width: of a frame.
        numbers: held by the network per pixel.

    Raises:
        MaskcastError: one frame is too large.
    """
    check_size(f"a frame of {height} x {width}", height * width, numbers)
    return max(1, CHUNK_NUMBERS // (height * width * numbers))


def chunk_slices(count: int, numbers: int) -> list[slice]:
    """Divides items into slices that fit into memory.

    Args:
        count: number of items.
        numbers: held in memory per item.
    """
    size = max(1, CHUNK_NUMBERS // numbers)
    return [slice(first, first + size) for first in range(0, count, size)]


def strips(steps: int, height: int, width: int, numbers: int) -> Iterator[tuple[slice, slice]]:
    """Yields pieces of frames in order, as slices of frames and of rows; checks the time before each.

    A piece is either whole frames or rows of one frame.

    Args:
        steps: number of frames.
        height: of a frame.
        width: of a frame.
        numbers: held in memory per pixel.
    """
    rows = max(1, CHUNK_NUMBERS // (width * numbers))
    if rows >= height:
        size = rows // height
        for first in range(0, steps, size):
            check_time()
            yield slice(first, min(first + size, steps)), slice(0, height)
        return
    for step in range(steps):
        for top in range(0, height, rows):
            check_time()
            yield slice(step, step + 1), slice(top, min(top + rows, height))
