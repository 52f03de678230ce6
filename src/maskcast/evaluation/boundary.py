"""J and F of DAVIS: scores of the region and the contour of each object, frame by frame.

Both are defined in Perazzi et al. 2016 (A benchmark dataset and evaluation methodology for video object
segmentation), and computed as in davisvideochallenge/davis2017-evaluation. Each class counts as an object.

Legend: T frames, H height, W width, K classes.
"""

import math
from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from maskcast.evaluation.metrics import jaccard_per_class, mean_where_labelled
from maskcast.labels import IGNORE

TOLERANCE = 0.008  # distance up to which contours match, relative to a frame's diagonal


def region_and_boundary(
    truth_THW: np.ndarray, prediction_THW: np.ndarray, counts_TKK: np.ndarray
) -> list[tuple[float, float]]:
    """Returns J and F of each foreground class in a clip's truth, averaged over its labelled frames.

    In a frame where a class is neither in the truth nor in the mask, both are 1. Pixels without a label belong to
    no class in truth and mask, as in the evaluation of DAVIS. Frames without any label are skipped.

    Args:
        truth_THW: class ids, uint8, 255 = no label.
        prediction_THW: class ids, uint8.
        counts_TKK: the `confusion` of each frame.
    """
    classes = 1 + np.flatnonzero(counts_TKK.sum(0)[1:].any(1))
    scores = []
    for t in np.flatnonzero(counts_TKK.any((1, 2))):
        region_k = np.nan_to_num(jaccard_per_class(counts_TKK[t])[classes], nan=1.0)
        labelled_HW = np.where(truth_THW[t] == IGNORE, IGNORE, prediction_THW[t])
        boundary_k = [boundary_f(truth_THW[t] == k, labelled_HW == k) for k in classes]
        scores.append(np.array([region_k, boundary_k]))
    return [(float(region), float(boundary)) for region, boundary in np.mean(scores, 0).T] if len(classes) else []


def j_and_f(objects: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Returns ``j``, ``f`` and their mean ``j_and_f`` over the objects of some clips; NaN without objects."""
    j, f = (mean_where_labelled([each[index] for each in objects]) for index in (0, 1))
    return {"j": j, "f": f, "j_and_f": (j + f) / 2}


def boundary_f(truth_HW: np.ndarray, prediction_HW: np.ndarray) -> float:
    """Returns the F measure, in 0..1, of the contour of an object in a frame.

    Precision is the share of the predicted contour's pixels that are near a pixel of the true contour: within
    0.008 of the frame's diagonal, rounded up to whole pixels. Recall is the same with exchanged roles. If both
    contours are empty F is 1, if only one is, F is 0.

    Args:
        truth_HW: true mask of the object, bool.
        prediction_HW: predicted mask, bool.
    """
    radius = math.ceil(TOLERANCE * math.hypot(*truth_HW.shape))
    truth_hw, prediction_hw = _crop_to_contours(truth_HW.view(np.uint8), prediction_HW.view(np.uint8))
    truth_hw, prediction_hw = _contour(truth_hw), _contour(prediction_hw)
    num_true, num_predicted = cv2.countNonZero(truth_hw), cv2.countNonZero(prediction_hw)
    if not num_true or not num_predicted:
        return float(num_true == num_predicted)
    precision = cv2.countNonZero(prediction_hw & cv2.dilate(truth_hw, _disk(radius))) / num_predicted
    recall = cv2.countNonZero(truth_hw & cv2.dilate(prediction_hw, _disk(radius))) / num_true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _crop_to_contours(one_HW: np.ndarray, other_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Crops both masks to the part with all contours, to save time; to one pixel if both are empty."""
    x, y, width, height = cv2.boundingRect(one_HW | other_HW)
    part = np.s_[max(0, y - 1) : y + height + 1, max(0, x - 1) : x + width + 1]
    return one_HW[part], other_HW[part]


def _contour(mask_HW: np.ndarray) -> np.ndarray:
    """Returns the pixels that differ from their right, lower or lower right neighbour within the frame."""
    return cv2.morphologyEx(mask_HW, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8), anchor=(0, 0))


@cache
def _disk(radius: int) -> np.ndarray:
    squares = np.arange(-radius, radius + 1) ** 2
    return (squares[:, None] + squares <= radius**2).astype(np.uint8)
