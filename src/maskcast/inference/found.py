"""What a segmenter finds in frames of a clip, map by map.

Legend: T frames, H height, W width, P pixels masked as an object, K classes.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeVar

import numpy as np

A = TypeVar("A", bound=Any)


class Masked(NamedTuple):
    """What is found of one label map in some frames."""

    masks: np.ndarray
    """(T, H, W) uint8: class ids, or opacity, 255 = 1."""
    confidence: np.ndarray | None
    """(T, H, W) float32: the probability of each pixel's class, or uint8 where it is asked for in levels; an alpha
    map has none."""
    objects: Sequence[Any] | None = None
    """Of each frame of a class map, where masks are to agree through time: (P, K) float32, the probabilities of
    its pixels that are not background, row by row; or the ``Regions`` found in them. They are not passed on."""


Found = dict[str, Masked]  # by the name of the label map


def length(found: Found) -> int:
    """Returns how many frames it is of."""
    return len(next(iter(found.values())).masks)


def sliced(found: Found, frames: slice) -> Found:
    """Returns what is found in some of the frames."""
    return {
        name: Masked(
            masks[frames],
            None if confidence is None else confidence[frames],
            None if objects is None else objects[frames],
        )
        for name, (masks, confidence, objects) in found.items()
    }


def joined(pieces: Sequence[Found]) -> Found:
    """Returns the pieces of a clip as one."""
    if len(pieces) == 1:
        return pieces[0]
    out: Found = {}
    for name in pieces[0]:
        masks, confidence, objects = zip(*(piece[name] for piece in pieces), strict=True)
        out[name] = Masked(
            np.concatenate(masks),
            None if confidence[0] is None else np.concatenate(confidence),
            None if objects[0] is None else list(chain.from_iterable(objects)),
        )
    return out


def quantise(confidence: np.ndarray, levels: int) -> np.ndarray:
    """Returns probabilities in [0, 1] as uint8, rounded to ``levels`` even steps from 0 to 255."""
    return rounded(confidence, levels).astype(np.uint8)


def rounded(confidence: A, levels: int) -> A:
    """Returns what ``quantise`` does, in the type that is given: an array, or a tensor on any device."""
    steps = levels - 1
    return ((confidence * steps).round() * (255 / steps)).round()


class MeanConfidence:
    """The mean confidence, 0..1, over the pixels masked as an object, or over all if there is none."""

    def __init__(self) -> None:
        self._objects, self._all = np.zeros(2, np.int64), np.zeros(2, np.int64)  # summed confidence, pixels

    def add(self, masks: np.ndarray, sure: np.ndarray) -> None:
        """Takes masks and their confidence, uint8."""
        inside = masks > 0
        self._objects += (sure * inside).sum(dtype=np.int64), np.count_nonzero(inside)
        self._all += sure.sum(dtype=np.int64), sure.size

    @property
    def value(self) -> float:
        """The mean of all that was added."""
        total, pixels = (self._objects if self._objects[1] else self._all).tolist()
        return float(total / pixels) / 255
