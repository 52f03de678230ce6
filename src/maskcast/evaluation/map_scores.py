"""Scores of masks of one label map, from counts that add up over frames and processes.

Legend: T frames, H height, W width, K classes.
"""

import math

import numpy as np

from maskcast.evaluation.metrics import confusion, scores_of_counts
from maskcast.labels import LabelMap


def counts_of(label_map: LabelMap, truth_THW: np.ndarray, prediction_THW: np.ndarray) -> np.ndarray:
    """Returns the counts from which a map's scores are computed, int64.

    For classes it is the confusion matrix (K, K). For an alpha it is (4,): the sums over all pixels of the smaller
    opacity, the greater opacity, the absolute difference, and the largest possible difference.
    """
    if label_map.kind != "alpha":
        return confusion(truth_THW, prediction_THW, label_map.num_classes)
    minimum_THW, maximum_THW = np.minimum(truth_THW, prediction_THW), np.maximum(truth_THW, prediction_THW)
    intersection, union = int(minimum_THW.sum(dtype=np.int64)), int(maximum_THW.sum(dtype=np.int64))
    return np.array([intersection, union, union - intersection, 255 * truth_THW.size], np.int64)


def zero_counts(label_map: LabelMap) -> np.ndarray:
    """Returns counts of zero."""
    return np.zeros(4 if label_map.kind == "alpha" else (label_map.num_classes,) * 2, np.int64)


def map_scores(label_map: LabelMap, counts: np.ndarray) -> dict[str, float]:
    """Returns ``jaccard`` and ``accuracy``, each between 0 and 1; without true foreground, ``jaccard`` is NaN.

    For classes they are the macro Jaccard (absent classes left out) and the share of correct pixels. For an alpha
    they are the fuzzy Jaccard (the sum of the smaller over the sum of the greater opacities) and 1 - mean absolute
    difference.

    One class besides the background also has ``jaccard_no_background``, its Jaccard. An alpha also has ``mad``,
    the mean absolute difference in thousandths (see `mattes`).
    """
    if label_map.kind != "alpha":
        return scores_of_counts(counts)
    intersection, union, difference, pixels = counts.tolist()
    mean_difference = difference / max(1, pixels)
    return {
        "jaccard": intersection / union if union else math.nan,
        "accuracy": 1 - mean_difference,
        "mad": 1000 * mean_difference,
    }
