"""Tells the colours of soft edges in masks from those of classes."""

from itertools import combinations

import numpy as np

from maskcast.data.masks.survey import MAX_LABEL_VALUES, MaskSurvey

MAX_CLASS_COLOURS = 32  # up to this many colours are compared in pairs
MIN_EDGE_PIXELS = 0.9  # of the pixels of an edge's colour, how many touch other colours
MIN_SHARED_FILES = 0.75  # at the border of an image only the edge of an object may show
TOLERANCE = 3.0  # how far rounding may move a mixture of two colours, in 8-bit steps


def edge_colours(survey: MaskSurvey) -> list[int]:
    """Returns the colours of soft edges: thin mixtures of two that have more pixels and occur in the same files.

    If fewer than half of the colours are mixtures, as a few of Pascal VOC's are, all are taken as classes.
    """
    if not survey.colours or len(survey.pixels) <= MAX_LABEL_VALUES:
        return []
    classes: list[int] = []
    edges: list[int] = []
    for value, _ in survey.pixels.most_common():
        inside = [file for file in survey.counts_by_file.values() if value in file]
        beside = [one for one in classes if sum(one in file for file in inside) >= MIN_SHARED_FILES * len(inside)]
        is_thin = survey.edge_pixels[value] >= MIN_EDGE_PIXELS * survey.pixels[value]
        is_edge = is_thin and any(_is_mixture(value, *pair) for pair in combinations(beside, 2))
        (edges if is_edge else classes).append(value)
        if len(classes) > MAX_CLASS_COLOURS:
            return []
    return edges if len(edges) > len(classes) else []


def _is_mixture(value: int, one: int, other: int) -> bool:
    """Whether a colour lies on the line between two others, all 0xRRGGBB."""
    mixed, start, end = (np.array([v >> 16, v >> 8 & 255, v & 255], float) for v in (value, one, other))
    along = np.dot(mixed - start, end - start) / np.dot(end - start, end - start)
    return 0 < along < 1 and bool(np.abs(start + along * (end - start) - mixed).max() <= TOLERANCE)
