"""Makes the masks of a clip consistent, window by window, while they are computed."""

from collections.abc import Callable, Iterator
from functools import partial

from maskcast.inference.predictions import MapPrediction, Predictions, concatenate, count_frames, take_frames
from maskcast.models.limits import check_time
from maskcast.models.objects.consistency import find_regions, make_consistent

Report = Callable[[str, int, bool, float], None]  # with the name of the map, see ``consistency.Report``


def _no_report(name: str, class_id: int, kept: bool, probability: float) -> None:
    """The default report, which does nothing."""


class StreamingConsistency:
    """Collects the frames of one clip, in pieces of any length, and makes their masks consistent.

    Within each window of ``frames`` frames, each object has one class. The last window includes earlier frames if
    too few are left, see ``make_windows_consistent``. Maps without classes are not changed.

    Args:
        frames: length of a window.
        report: is called for each class found in a window.
    """

    def __init__(self, frames: int, report: Report = _no_report) -> None:
        self._frames, self._report = frames, report
        self._pending: Predictions = {}  # frames of an incomplete window
        self._last_window: Predictions = {}  # the last complete window

    def add(self, predictions: Predictions) -> Iterator[Predictions]:
        """Adds frames, with the probabilities of their foreground pixels; yields each complete window.

        It keeps copies only, because the arrays given may lie in memory that is reused.
        """
        predictions = {name: _with_regions(prediction) for name, prediction in predictions.items()}
        self._pending = concatenate([self._pending or take_frames(predictions, slice(0)), predictions])
        while count_frames(self._pending) >= self._frames:
            self._last_window = take_frames(self._pending, slice(self._frames))
            self._pending = take_frames(self._pending, slice(self._frames, None))
            yield self._consistent(self._last_window, self._frames)

    def end(self) -> Iterator[Predictions]:
        """Yields the remaining frames, if there are any."""
        remaining = count_frames(self._pending) if self._pending else 0
        if remaining:
            earlier = [take_frames(self._last_window, slice(remaining, None))] if self._last_window else []
            yield self._consistent(concatenate([*earlier, self._pending]), remaining)

    def _consistent(self, predictions: Predictions, last: int) -> Predictions:
        """Makes frames consistent, and returns the last ``last`` of them."""
        consistent = {
            name: one
            if one.regions is None or one.confidence is None
            else MapPrediction(
                *make_consistent(one.masks, one.confidence, one.regions, check_time, partial(self._report, name))
            )
            for name, one in predictions.items()
        }
        return take_frames(consistent, slice(count_frames(predictions) - last, None))


def _with_regions(prediction: MapPrediction) -> MapPrediction:
    if prediction.probabilities is None:
        return prediction
    frames = zip(prediction.masks, prediction.probabilities, strict=True)
    regions = [find_regions(mask_HW, probabilities_PK, check_time) for mask_HW, probabilities_PK in frames]
    return prediction._replace(probabilities=None, regions=regions)
