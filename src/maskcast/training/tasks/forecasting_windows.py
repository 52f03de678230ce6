"""Draws windows of clips to train forecasters on."""

from collections.abc import Sequence
from dataclasses import dataclass

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
    short for the whole horizon, the horizon ends with the clip.

    Args:
        lengths: number of frames of each clip.
        context: maximum number of context frames.
        min_context: minimum number of context frames.
        horizon: number of frames to forecast.
        seed: of the random draws.

    Raises:
        MaskcastError: if no clip is longer than ``min_context``.
    """

    def __init__(self, lengths: Sequence[int], *, context: int, min_context: int, horizon: int, seed: int) -> None:
        if not any(length > min_context for length in lengths):
            longest = "no clips"
            if lengths:
                longest = f"the longest of {len(lengths)} has {pluralize(max(lengths), 'frame')}"
            raise MaskcastError(
                f"no clip is longer than min_context_frames = {min_context} ({longest}); lower it or "
                "prepare longer clips"
            )
        self.lengths, self.context, self.min_context = tuple(lengths), context, min_context
        self.horizon, self.seed = horizon, seed

    def draw(self, step: int, count: int) -> Windows:
        """Returns the ``count`` windows of a step."""
        random = rng(self.seed, step)
        usable = [k for k, length in enumerate(self.lengths) if length > self.min_context]
        first = self.lengths[usable[int(random.integers(len(usable)))]]
        # a first clip too short for both keeps the horizon and shortens the context, down to min_context
        most = max(self.min_context, min(self.context, first - self.horizon))
        context = int(random.integers(self.min_context, most + 1))
        horizon = min(self.horizon, first - context)
        usable = [k for k in usable if self.lengths[k] >= context + horizon]
        clips = [usable[int(random.integers(len(usable)))] for _ in range(count)]
        starts = [int(random.integers(self.lengths[k] - context - horizon + 1)) for k in clips]
        return Windows(tuple(clips), tuple(starts), context, horizon)
