"""Pairs objects that share pixels: those of one segmentation with those of another of the same frames.

Legend: T frames, H height, W width, P pixels, E pairs.
"""

from collections.abc import Callable, Iterable

import numpy as np

NAME_BITS = 16  # of a key of a number and a name


def match(pairs: Iterable[tuple[int, int]], fits: Callable[[int, int], bool]) -> dict[int, int]:
    """Returns a name for each object number that shares pixels with one that ``fits``, each name at most once.

    The first of the ``pairs`` of a number and a name comes first.
    """
    name_of: dict[int, int] = {}
    for number, name in pairs:
        if number not in name_of and name not in name_of.values() and fits(number, name):
            name_of[number] = name
    return name_of


def overlaps(number_THW: np.ndarray, name_THW: np.ndarray) -> list[tuple[int, int]]:
    """Returns the pairs of an object number and a name that share pixels, most pixels first.

    Pairs with equally many pixels come in the order of appearance.
    """
    return rank_overlaps(count_overlaps(number_THW, name_THW))


def rank_overlaps(counts_E3: np.ndarray) -> list[tuple[int, int]]:
    """Returns the pairs of ``overlaps`` from counts of ``count_overlaps``, possibly of several parts of a clip."""
    keys, first, inverse = np.unique(
        counts_E3[:, 0] << NAME_BITS | counts_E3[:, 1], return_index=True, return_inverse=True
    )
    pixels = np.bincount(inverse, weights=counts_E3[:, 2])
    best = keys[np.lexsort((first, -pixels))].tolist()
    return [(key >> NAME_BITS, key & (1 << NAME_BITS) - 1) for key in best]


def count_overlaps(number_THW: np.ndarray, name_THW: np.ndarray) -> np.ndarray:
    """Returns number, name and shared pixels of each pair that shares some, (E, 3) int64.

    They are in the order of appearance. Pixels of number 0 do not count.
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
    found = found[np.argsort(first[found])]
    return np.stack([numbers[found // names], found % names, counts[found]], 1)
