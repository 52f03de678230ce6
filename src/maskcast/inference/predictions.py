"""A segmenter's predictions for frames of a clip, by label map.

Legend: T frames, H height, W width, P foreground pixels, K classes.
"""

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from maskcast.models.objects.consistency import Regions

A = TypeVar("A", bound=Any)


class ClassLogits(NamedTuple):
    """The logits of one frame of a class map, without those of classes that are nowhere the most probable."""

    classes: np.ndarray
    """(Q,) uint8: the classes that are the most probable of some pixel, ascending."""
    logits: np.ndarray
    """(H, W, Q) float32: their logits."""


class MapPrediction(NamedTuple):
    """The predictions of one label map for some frames."""

    masks: np.ndarray
    """(T, H, W) uint8: class ids, or opacity, 255 = 1."""
    confidence: np.ndarray | None
    """(T, H, W) float32: the probability of each pixel's class, or uint8 if it was quantised; None for an alpha
    map."""
    probabilities: Sequence[np.ndarray] | None = None
    """For each frame of a class map whose masks are to be made consistent: the probabilities of its foreground
    pixels in row-major order, (P, K) float32. Not part of the final result."""
    regions: Sequence["Regions"] | None = None
    """What takes their place while frames wait for the end of their window."""
    logits: Sequence[ClassLogits] | None = None
    """Of each frame of a class map, from a ``Worker`` that returns them."""


Predictions = dict[str, MapPrediction]  # by the name of the label map


def count_frames(predictions: Predictions) -> int:
    """Returns the number of frames."""
    return len(next(iter(predictions.values())).masks)


def take_frames(predictions: Predictions, frames: slice) -> Predictions:
    """Returns the predictions for a range of the frames."""
    return {
        name: MapPrediction._make(None if values is None else values[frames] for values in prediction)
        for name, prediction in predictions.items()
    }


def concatenate(pieces: Sequence[Predictions]) -> Predictions:
    """Concatenates the pieces of a clip."""
    if len(pieces) == 1:
        return pieces[0]
    return {
        name: MapPrediction._make(map(_joined, zip(*(piece[name] for piece in pieces), strict=True)))
        for name in pieces[0]
    }


def _joined(values: Sequence[Any]) -> Any:
    """Joins arrays, lists with an item per frame, or values that are all None."""
    if values[0] is None:
        return None
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else list(chain.from_iterable(values))


def quantise(confidence: np.ndarray, levels: int) -> np.ndarray:
    """Returns probabilities in [0, 1] as uint8, rounded to ``levels`` even steps from 0 to 255."""
    return rounded(confidence, levels).astype(np.uint8)


def least_probability(least: int, levels: int) -> float:
    """Returns the least probability that ``quantise`` turns into ``least`` or more.

    Args:
        least: 0 to 255.
        levels: number of steps.
    """
    steps = levels - 1
    level = int(np.searchsorted(quantise(np.arange(levels) / steps, levels), least))
    return max(0.0, (level - 0.5) / steps)


def rounded(confidence: A, levels: int) -> A:
    """Rounds like ``quantise``, but keeps the type: an array, or a tensor on any device."""
    steps = levels - 1
    return ((confidence * steps).round() * (255 / steps)).round()


class MeanConfidence:
    """The mean confidence, 0..1, over foreground pixels, or over all pixels if there are none."""

    def __init__(self) -> None:
        self._objects, self._all = np.zeros(2, np.int64), np.zeros(2, np.int64)  # summed confidence, pixels

    def add(self, masks: np.ndarray, confidence: np.ndarray) -> None:
        """Adds masks and their confidence, uint8."""
        inside = masks > 0
        self._objects += (confidence * inside).sum(dtype=np.int64), np.count_nonzero(inside)
        self._all += confidence.sum(dtype=np.int64), confidence.size

    @property
    def value(self) -> float:
        """The mean over all that was added."""
        total, pixels = (self._objects if self._objects[1] else self._all).tolist()
        return float(total / pixels) / 255
