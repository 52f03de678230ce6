"""Pairs objects that share pixels: those of one segmentation with those of another of the same frames.

Legend: T frames, H height, W width, P pixels.
"""

from collections.abc import Callable

import numpy as np


def match(number_THW: np.ndarray, name_THW: np.ndarray, fits: Callable[[int, int], bool]) -> dict[int, int]:
    """Returns a name for each object number that shares pixels with one that ``fits``, each name at most once.

    The pair that shares most pixels comes first.
    """
    name_of: dict[int, int] = {}
    for number, name in overlaps(number_THW, name_THW):
        if number not in name_of and name not in name_of.values() and fits(number, name):
            name_of[number] = name
    return name_of


def overlaps(number_THW: np.ndarray, name_THW: np.ndarray) -> list[tuple[int, int]]:
    """Returns the pairs of an object number and a name that share pixels, most pixels first.

    Pairs with equally many pixels come in the order of appearance.
    """
    foreground_THW = number_THW > 0
    number_P, name_P = number_THW[foreground_THW], name_THW[foreground_THW]
    numbers = np.flatnonzero(np.bincount(number_P))  # few of up to 65535
    place = np.zeros(int(numbers.max(initial=0)) + 1, np.int64)
    place[numbers] = np.arange(len(numbers))
    names = int(name_P.max(initial=0)) + 1
    pairs = place[number_P] * names + name_P
    counts = np.bincount(pairs)
    first = np.zeros(len(counts), np.int64)
    first[pairs[::-1]] = np.arange(len(pairs))[::-1]  # of a repeated index, the last value stays
    found = counts.nonzero()[0]
    best = found[np.lexsort((first[found], -counts[found]))]
    return [(int(numbers[pair // names]), int(pair % names)) for pair in best]
