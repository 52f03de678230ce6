"""Frames by number over clips that are laid end to end, some frames of one; parts of a sequence."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from maskcast.data.clip_store.table import Clip, frame_counts

T = TypeVar("T")


class FrameIndex:
    """Numbers the frames of clips from 0 on, clip after clip.

    Args:
        clips: in this order.
        length: numbers windows of so many frames instead, each by its first.
    """

    def __init__(self, clips: Sequence[Clip], length: int = 1) -> None:
        self._ends = np.cumsum((frame_counts(clips) - length + 1).clip(0))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def at(self, frame: int) -> tuple[int, int]:
        """Returns the number of the clip that holds a frame, and the frame's place in it."""
        clip = int(np.searchsorted(self._ends, frame, side="right"))
        return clip, frame - self.start(clip)

    def start(self, clip: int) -> int:
        """Returns the number of a clip's first frame."""
        return int(self._ends[clip - 1]) if clip else 0

    def pieces(self, first: int, last: int) -> Iterator[tuple[int, slice]]:
        """Yields the clips that hold frames ``first`` to ``last - 1``, each with these frames' places in it."""
        while first < last:
            clip, place = self.at(first)
            stop = min(last, int(self._ends[clip])) - self.start(clip)
            yield clip, slice(place, stop)
            first += stop - place


def slices_of(frames: Sequence[int], first: int = 0) -> list[slice]:
    """Returns what cuts frames out of those from ``first`` on: one slice of a range, else one for each frame."""
    parts = [frames] if isinstance(frames, range) else [range(t, t + 1) for t in frames]
    return [slice(part.start - first, part.stop - first, part.step) for part in parts if part]


def taken(frames: Sequence[int], read: Callable[[slice], np.ndarray]) -> np.ndarray:
    """Returns some frames of what is read by slices; at least one."""
    parts = [read(part) for part in slices_of(frames)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def in_batches(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Returns items ``size`` together; of the last ones there may be fewer."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def evenly_spaced(total: int, most: int, *, ends: bool = True) -> list[int]:
    """Returns at most ``most`` of the numbers 0..total-1, spread evenly, in order.

    Args:
        total: how many numbers there are.
        most: how many are wanted.
        ends: whether the last is among them; else the numbers are the first of ``most`` parts of equal size.
    """
    count = min(total, most)
    if ends:
        return np.linspace(0, total - 1, count, dtype=np.int64).tolist()
    return [number * total // count for number in range(count)]
