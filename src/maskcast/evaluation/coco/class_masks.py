"""COCO-style segmentation AP of class masks: each object class of a frame is one instance.

So a frame has at most one true and one predicted instance of a class, and a confusion matrix tells how they
overlap. This takes a fraction of the time and memory of general instances (`evaluator`), for the same numbers.

Legend: N frames, H height, W width, K classes, P pairs of a frame and a class, D predicted instances,
T = 10 IoU thresholds .50:.05:.95, R = 101 recalls 0:.01:1, A = 4 ranges of areas (the first holds all), M = 3
maximum numbers of detections; masks are uint8 class ids, 0 = background.
"""

from typing import NamedTuple

import numpy as np

from maskcast.evaluation.coco.curves import PARAMS, precision_and_recall
from maskcast.evaluation.coco.evaluator import summarize
from maskcast.labels import IGNORE


class _Pairs(NamedTuple):
    """The true and the predicted instance of each pair; one of them may have no pixels."""

    ids: np.ndarray  # of the class, (P,) uint8
    true: np.ndarray  # pixels, (P,) int32, as are the next two
    predicted: np.ndarray
    both: np.ndarray
    score: np.ndarray  # of the predicted instance, (P,) float64


class SegmentationAP:
    """Collects masks frame by frame and scores all together (the standard AP is not a mean over frames).

    Args:
        num_classes: K; classes 1..K-1 are the categories.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._added: list[_Pairs] = []

    def add(
        self,
        counts_NKK: np.ndarray,
        target_NHW: np.ndarray,
        prediction_NHW: np.ndarray,
        confidence_NHW: np.ndarray | None = None,
    ) -> None:
        """Adds N frames.

        Args:
            counts_NKK: The `confusion` of each frame.
            target_NHW: True class ids; predictions on `IGNORE` pixels are ignored.
            prediction_NHW: Predicted class ids.
            confidence_NHW: uint8, 255 = certain; an instance's score is the mean over its pixels. Without it
                every score is 1, and frames rank in the order they were added.
        """
        true_NK, predicted_NK = counts_NKK.sum(2), counts_NKK.sum(1)
        exists_NK = (true_NK > 0) | (predicted_NK > 0)
        exists_NK[:, 0] = False
        pairs = np.nonzero(exists_NK)
        score_NK = np.ones(exists_NK.shape)
        if confidence_NHW is not None:
            for n, confidence_HW in enumerate(confidence_NHW):
                ids_HW = prediction_NHW[n] * (target_NHW[n] != IGNORE)
                score_NK[n] = np.bincount(ids_HW.ravel(), confidence_HW.ravel(), self.num_classes)
            score_NK = score_NK / np.maximum(predicted_NK, 1) / 255
        true_P, predicted_P, both_P = (
            areas_NK[pairs].astype(np.int32)
            for areas_NK in (true_NK, predicted_NK, np.diagonal(counts_NKK, axis1=1, axis2=2))
        )
        self._added.append(_Pairs(pairs[1].astype(np.uint8), true_P, predicted_P, both_P, score_NK[pairs]))

    def merge(self, other: "SegmentationAP") -> None:
        """Adds the frames of another, after those of this one."""
        self._added += other._added

    def compute(self) -> dict[str, float]:
        """Returns AP, AP50, AP75, AP and AR by area, AR1, AR10, AR100, each in 0..1.

        AP is the mean over IoU thresholds .50:.05:.95 and over the classes that occur in the targets. A value
        without any target (COCO prints -1) is NaN.
        """
        shape_TKA = (len(PARAMS.iouThrs), self.num_classes - 1, len(PARAMS.areaRng))
        precision_TRKA = np.full((shape_TKA[0], len(PARAMS.recThrs), *shape_TKA[1:]), -1.0)
        recall_TKA = np.full(shape_TKA, -1.0)
        if self._added:
            pairs = _Pairs(*(np.concatenate(column) for column in zip(*self._added, strict=True)))
            order_P = (-pairs.score).argsort(kind="stable")
            pairs = _Pairs(*(column[order_P] for column in pairs))
            for k in np.unique(pairs.ids):
                of_class = _Pairs(*(column[pairs.ids == k] for column in pairs))
                for a, limits in enumerate(PARAMS.areaRng):
                    if curves := _curves(of_class, *limits):
                        precision_TRKA[:, :, k - 1, a], recall_TKA[:, k - 1, a] = curves
        # An image has one detection of a category at most, so their maximum number has no effect.
        precision_TRKAM, recall_TKAM = (
            np.repeat(each[..., None], len(PARAMS.maxDets), -1) for each in (precision_TRKA, recall_TKA)
        )
        return summarize(precision_TRKAM, recall_TKAM)


def _curves(pairs: _Pairs, least: float, greatest: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the precision and recall of a class for a range of areas; None if no true instance has such an area.

    True instances of other areas do not count, nor do predicted ones that match them, or match none and have
    another area.

    Args:
        pairs: Of the class, the surest first.
        least: Least area.
        greatest: Greatest area.
    """
    outside_P, outside_D = ((area < least) | (area > greatest) for area in (pairs.true, pairs.predicted))
    truths = int(np.count_nonzero((pairs.true > 0) & ~outside_P))
    if not truths:
        return None
    iou_D = pairs.both / (pairs.true + pairs.predicted - pairs.both)
    matched_TD = iou_D >= PARAMS.iouThrs[:, None]
    counted_TD = ~np.where(matched_TD, outside_P, outside_D)
    exists_D = pairs.predicted > 0
    return precision_and_recall(matched_TD[:, exists_D], counted_TD[:, exists_D], truths)
