"""Precision over recall as COCO interpolates it.

Legend: D detections, T = 10 IoU thresholds .50:.05:.95, R = 101 recalls 0:.01:1.
"""

import numpy as np
from faster_coco_eval.core.cocoeval import Params

PARAMS = Params()
"""COCO's IoU thresholds, recalls, ranges of areas (the first holds all) and maximum numbers of detections."""


def precision_and_recall(
    matched_TD: np.ndarray, counted_TD: np.ndarray, truths: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns interpolated precision (T, R) and the highest recall (T,) of a category.

    The precision at a recall is the highest one at this recall and above, and 0 if it is never reached.

    Args:
        matched_TD: Which detections match a truth; the surest come first.
        counted_TD: Which detections count; others are neither true nor false.
        truths: Number of truths that count; at least 1.
    """
    hits_TD = (matched_TD & counted_TD).cumsum(1)
    recall_TD = hits_TD / truths
    precision_TD = hits_TD / np.maximum(counted_TD.cumsum(1), 1)
    highest_TD = np.maximum.accumulate(precision_TD[:, ::-1], 1)[:, ::-1]
    indices_TR = np.stack([recall_D.searchsorted(PARAMS.recThrs) for recall_D in recall_TD])
    precision_TR = np.take_along_axis(np.pad(highest_TD, ((0, 0), (0, 1))), indices_TR, 1)
    return precision_TR, recall_TD.max(1, initial=0)
