"""Draws windows of clips to train forecasters on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.reading import pluralize
from maskcast.seed import rng


@dataclass(frozen=True)
class Windows:
    """A batch of windows with the same lengths."""

    clips: tuple[int, ...]
    """Index of each window's clip."""
    starts: tuple[int, ...]
    """Index of each window's first frame in its clip."""
    context: int
    """Number of frames that the forecaster sees."""
    horizon: int
    """Number of frames after the context, which are to be forecast."""


class WindowSampler:
    """Draws windows from clips of any length, as a pure function of (seed, step).

    The context length is drawn per batch from ``min_context..context``. So even a clip that is no longer than one
    full window gives many windows, which may start anywhere and end at its last frame. For a clip that is too
    short for the whole horizon, the horizon ends with the clip. Every horizon has a labelled frame.

    Args:
        lengths: number of frames of each clip.
        context: maximum number of context frames.
        min_context: minimum number of context frames.
        horizon: number of frames to forecast.
        seed: of the random draws.
        labelled: the labelled frames of each clip, ascending; None if all are.

    Raises:
        MaskcastError: if no clip is longer than ``min_context``, or none has a labelled frame beyond.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        context: int,
        min_context: int,
        horizon: int,
        seed: int,
        labelled: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not any(length > min_context for length in lengths):
            longest = "no clips"
            if lengths:
                longest = f"the longest of {len(lengths)} has {pluralize(max(lengths), 'frame')}"
            raise MaskcastError(
                f"no clip is longer than min_context_frames = {min_context} ({longest}); lower it or "
                "prepare longer clips"
            )
        self._last = [length - 1 for length in lengths]  # the last labelled frame of each clip
        self._before: dict[int, np.ndarray] = {}  # how many labelled frames precede each, if not all are labelled
        for k, frames in enumerate(labelled or ()):
            if len(frames) < lengths[k]:
                self._last[k] = max(frames, default=-1)
                self._before[k] = np.cumsum(np.bincount(np.add(frames, 1).astype(int), minlength=lengths[k] + 1))
        if max(self._last) < min_context:
            raise MaskcastError(
                f"no clip has a labelled frame after the first min_context_frames = {min_context}; lower it, or "
                "label later frames"
            )
        self.lengths, self.context, self.min_context = tuple(lengths), context, min_context
        self.horizon, self.seed = horizon, seed

    def draw(self, step: int, count: int) -> Windows:
        """Returns the ``count`` windows of a step."""
        random = rng(self.seed, step)
        usable = [k for k, last in enumerate(self._last) if last >= self.min_context]
        k = usable[int(random.integers(len(usable)))]
        first = self.lengths[k]
        # a first clip too short for both keeps the horizon and shortens the context, down to min_context
        most = max(self.min_context, min(self.context, first - self.horizon, self._last[k]))
        context = int(random.integers(self.min_context, most + 1))
        horizon = min(self.horizon, first - context)
        usable = [k for k in usable if self.lengths[k] >= context + horizon and self._last[k] >= context]
        clips = [usable[int(random.integers(len(usable)))] for _ in range(count)]
        allowed = [self._starts(k, context, horizon) for k in clips]
        starts = [int(each[int(random.integers(len(each)))]) for each in allowed]
        return Windows(tuple(clips), tuple(starts), context, horizon)

    def _starts(self, k: int, context: int, horizon: int) -> Sequence[int] | np.ndarray:
        """Returns the first frames of the windows of a clip whose horizon has a labelled frame."""
        if k not in self._before:
            return range(self.lengths[k] - context - horizon + 1)
        before = self._before[k][context:]
        return np.flatnonzero(before[horizon:] > before[: len(before) - horizon])
