"""How much work is in memory at once: pixels times the numbers that a network holds of each; and for how long.

Work that is larger is done in pieces, and what cannot be cut is refused: a network needs the whole of a frame. The
pieces follow from shapes alone, so that the same work gives the same bits wherever it is done. Between two pieces
work ends that has taken too long, where somebody has set a limit.
"""

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from maskcast.errors import MaskcastError

AT_ONCE = 2**26
"""Numbers in memory at once, 256 MiB of float32, of work that can be cut; the recipes need fewer for a batch."""
WHOLE = 2**29
"""Numbers of what cannot be cut, 2 GiB of float32: a frame of 1920x1080 in a U-Net of width 64 has as many."""
MOST_FUTURES = 1000
"""Futures of a clip that are drawn at most: all are kept until they are scored or written."""
_limit: ContextVar[tuple[float, float]] = ContextVar("limit", default=(math.inf, math.inf))
"""Seconds that work may take, and when they are over, as `time.monotonic` counts."""


@contextmanager
def done_within(seconds: float) -> Iterator[None]:
    """Limits how long the work of the block, in this thread, may take; ``check_time`` enforces it."""
    token = _limit.set((seconds, time.monotonic() + seconds))
    try:
        yield
    finally:
        _limit.reset(token)


def check_time() -> None:
    """Checks the time limit; long work calls it between its pieces.

    Raises:
        MaskcastError: the work has taken longer than it may.
    """
    seconds, end = _limit.get()
    if time.monotonic() > end:
        raise MaskcastError(
            f"frames: not done within the {seconds:g} s that one call may take here; give fewer clips, or smaller "
            "frames"
        )


def check_whole(what: str, pixels: int, numbers: int) -> None:
    """Makes sure that what cannot be cut is not too large.

    Args:
        what: it is.
        pixels: of it.
        numbers: that are held of each.

    Raises:
        MaskcastError: it is; the line says what is allowed.
    """
    if pixels * numbers > WHOLE:
        raise MaskcastError(
            f"{what}: {pixels} pixels; this model takes at most {WHOLE // numbers} at once, use smaller frames"
        )


def frames_at_once(height: int, width: int, numbers: int) -> int:
    """Returns how many frames go through a network at once.

    Args:
        height: of a frame.
        width: of a frame.
        numbers: that the network holds of a pixel.

    Raises:
        MaskcastError: one frame is too large.
    """
    check_whole(f"a frame of {height} x {width}", height * width, numbers)
    return max(1, AT_ONCE // (height * width * numbers))


def parts_of(count: int, numbers: int) -> list[slice]:
    """Returns which of some things are worked on at once, in their order.

    Args:
        count: how many there are.
        numbers: that are held of each.
    """
    some = max(1, AT_ONCE // numbers)
    return [slice(first, first + some) for first in range(0, count, some)]


def strips(steps: int, height: int, width: int, numbers: int) -> Iterator[tuple[Sequence[int], slice]]:
    """Yields pieces of frames, in their order: some frames whole, or some rows of one; checks the time each time.

    Args:
        steps: how many frames there are.
        height: of a frame.
        width: of a frame.
        numbers: that are held of a pixel.
    """
    rows = max(1, AT_ONCE // (width * numbers))
    if rows >= height:
        some = rows // height
        for first in range(0, steps, some):
            check_time()
            yield range(steps)[first : first + some], slice(0, height)
        return
    for step in range(steps):
        for top in range(0, height, rows):
            check_time()
            yield [step], slice(top, min(top + rows, height))
