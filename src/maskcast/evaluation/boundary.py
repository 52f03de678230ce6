"""J and F of DAVIS: how well the region and the contour of each object are found, frame by frame.

Both are those of Perazzi et al. 2016 (A benchmark dataset and evaluation methodology for video object
segmentation), as davisvideochallenge/davis2017-evaluation computes them; an object is a class here.

Legend: T frames, H height, W width, K classes.
"""

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from maskcast.evaluation.metrics import jaccard_per_class, mean_where_labelled
from maskcast.labels import IGNORE

TOLERANCE = 0.008  # of a frame's diagonal: how far apart contours still match


def region_and_boundary(
    truth_THW: np.ndarray, found_THW: np.ndarray, counts_TKK: np.ndarray
) -> list[tuple[float, float]]:
    """Returns J and F of each class but background that a clip's truth has, the means over its labelled frames.

    In a frame where a class is neither in truth nor mask, both are 1. Pixels without a label are of no class, in
    truth and mask alike, as in the evaluation of DAVIS; frames without any label are left out.

    Args:
        truth_THW: class ids, uint8, 255 = no label.
        found_THW: class ids, uint8.
        counts_TKK: the `confusion` of each frame.
    """
    classes = 1 + np.flatnonzero(counts_TKK.sum(0)[1:].any(1))
    scores = []
    for t in np.flatnonzero(counts_TKK.any((1, 2))):
        region_k = np.nan_to_num(jaccard_per_class(counts_TKK[t])[classes], nan=1.0)
        known_HW = np.where(truth_THW[t] == IGNORE, IGNORE, found_THW[t])
        boundary_k = [boundary_f(truth_THW[t] == k, known_HW == k) for k in classes]
        scores.append(np.array([region_k, boundary_k]))
    return [(float(region), float(boundary)) for region, boundary in np.mean(scores, 0).T] if len(classes) else []


def j_and_f(objects: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Returns ``j``, ``f`` and their mean ``j_and_f`` over the objects of some clips; NaN where there is none."""
    j, f = (mean_where_labelled([each[place] for each in objects]) for place in (0, 1))
    return {"j": j, "f": f, "j_and_f": (j + f) / 2}


def boundary_f(truth_HW: np.ndarray, found_HW: np.ndarray) -> float:
    """Returns the F measure of the contour of an object in a frame, between 0 and 1.

    Precision is the share of the found contour's pixels that have one of the true contour within 0.008 of the
    frame's diagonal, in whole pixels, rounded up; recall is the same the other way round. Without any contour F
    is 1, with one of them alone it is 0.

    Args:
        truth_HW: where the object is, bool.
        found_HW: where it was found, bool.
    """
    radius = math.ceil(TOLERANCE * math.hypot(*truth_HW.shape))
    truth_hw, found_hw = _cut(truth_HW.view(np.uint8), found_HW.view(np.uint8))
    if not truth_hw.size:
        return 1.0
    truth_hw, found_hw = _contour(truth_hw), _contour(found_hw)
    true, found = cv2.countNonZero(truth_hw), cv2.countNonZero(found_hw)
    if not true or not found:
        return float(true == found)
    precision = cv2.countNonZero(found_hw & cv2.dilate(truth_hw, _disk(radius))) / found
    recall = cv2.countNonZero(truth_hw & cv2.dilate(found_hw, _disk(radius))) / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _cut(one_HW: np.ndarray, other_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the part of both that has all of their contours: what is around the objects costs time alone."""
    x, y, width, height = cv2.boundingRect(one_HW | other_HW)
    if not width:
        return one_HW[:0], other_HW[:0]
    part = np.s_[max(0, y - 1) : y + height + 1, max(0, x - 1) : x + width + 1]
    return one_HW[part], other_HW[part]


def _contour(mask_HW: np.ndarray) -> np.ndarray:
    """Returns the pixels that differ from the next one to the right, below, or both; none outside of the frame."""
    return cv2.morphologyEx(mask_HW, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8), anchor=(0, 0))


@cache
def _disk(radius: int) -> np.ndarray:
    away = np.arange(-radius, radius + 1) ** 2
    return (away[:, None] + away <= radius**2).astype(np.uint8)
