"""Numbers the frames of several clips consecutively, and selects frames of a clip."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from maskcast.data.clip_store.table import Clip, frame_counts

T = TypeVar("T")


class FrameIndex:
    """Numbers the frames of clips from 0, clip after clip.

    Args:
        clips: in this order.
        length: if given, numbers windows of this many frames by their first frame, instead of frames.
    """

    def __init__(self, clips: Sequence[Clip], length: int = 1) -> None:
        self._ends = np.cumsum((frame_counts(clips) - length + 1).clip(0))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, frame: int) -> tuple[int, int]:
        """Returns the index of the clip that holds a frame, and the frame's index in that clip."""
        clip = int(np.searchsorted(self._ends, frame, side="right"))
        return clip, frame - self.start(clip)

    def start(self, clip: int) -> int:
        """Returns the number of a clip's first frame."""
        return int(self._ends[clip - 1]) if clip else 0

    def pieces(self, first: int, last: int) -> Iterator[tuple[int, slice]]:
        """Yields the index of each clip with frames from ``first`` to ``last - 1``, and the slice of these."""
        while first < last:
            clip, place = self.at(first)
            stop = min(last, int(self._ends[clip])) - self.start(clip)
            yield clip, slice(place, stop)
            first += stop - place


def slices_of(frames: Sequence[int], first: int = 0) -> list[slice]:
    """Returns slices that select ``frames`` from an array that starts at frame ``first``; one for a range."""
    parts = [frames] if isinstance(frames, range) else [range(t, t + 1) for t in frames]
    return [slice(part.start - first, part.stop - first, part.step) for part in parts if part]


def read_in_slices(frames: Sequence[int], read: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Returns some frames, at least one, of an array that is read slice by slice."""
    parts = [read(part) for part in slices_of(frames)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Returns the items in batches of ``size``; the last may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def evenly_spaced(total: int, most: int, *, ends: bool = True) -> list[int]:
    """Returns at most ``most`` of the numbers 0..total-1, evenly spaced, in ascending order.

    Args:
        total: how many numbers there are.
        most: how many to return at most.
        ends: whether to include the last number; else the numbers are the starts of ``most`` parts of equal size.
    """
    count = min(total, most)
    if ends:
        return np.linspace(0, total - 1, count, dtype=np.int64).tolist()
    return [number * total // count for number in range(count)]


def spread(items: Sequence[T], most: int, *, ends: bool = True) -> list[T]:
    """Returns at most ``most`` of the items, evenly spaced in their order (see ``evenly_spaced``)."""
    return [items[number] for number in evenly_spaced(len(items), most, ends=ends)]
