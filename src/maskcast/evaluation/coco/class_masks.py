"""COCO-style segmentation AP of class masks: each object class of a frame is one instance.

So a frame has at most one true and one predicted instance of a class, and a confusion matrix tells how they
overlap. This takes a fraction of the time and memory of general instances (`evaluator`), for the same numbers.

Legend: N frames, H height, W width, K classes, R pairs of a frame and a class, D detections, T = 10 IoU thresholds
.50:.05:.95, S = 101 recalls 0:.01:1, A = 4 ranges of areas (the first holds all), M = 3 maximum numbers of
detections; masks are uint8 class ids, 0 = background.
"""

from typing import NamedTuple

import numpy as np
from faster_coco_eval.core.cocoeval import Params

from maskcast.evaluation.coco.evaluator import summarize
from maskcast.labels import IGNORE


class _Pairs(NamedTuple):
    """The true and the predicted instance of each pair; one of them may have no pixels."""

    ids: np.ndarray  # of the class, (R,) uint8
    true: np.ndarray  # pixels, (R,) int32, as are the next two
    predicted: np.ndarray
    both: np.ndarray
    score: np.ndarray  # of the predicted instance, (R,) float64


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
        true_R, predicted_R, both_R = (
            areas_NK[pairs].astype(np.int32)
            for areas_NK in (true_NK, predicted_NK, np.diagonal(counts_NKK, axis1=1, axis2=2))
        )
        self._added.append(_Pairs(pairs[1].astype(np.uint8), true_R, predicted_R, both_R, score_NK[pairs]))

    def merge(self, other: "SegmentationAP") -> None:
        """Adds the frames of another, after those of this one."""
        self._added += other._added

    def compute(self) -> dict[str, float]:
        """Returns AP, AP50, AP75, AP and AR by area, AR1, AR10, AR100, each in 0..1.

        AP is the mean over IoU thresholds .50:.05:.95 and over the classes that occur in the targets. A value
        without any target (COCO prints -1) is NaN.
        """
        params = Params("segm")
        shape_TKA = (len(params.iouThrs), self.num_classes - 1, len(params.areaRng))
        precision_TSKA = np.full((shape_TKA[0], len(params.recThrs), *shape_TKA[1:]), -1.0)
        recall_TKA = np.full(shape_TKA, -1.0)
        if self._added:
            pairs = _Pairs(*(np.concatenate(column) for column in zip(*self._added, strict=True)))
            for k in np.unique(pairs.ids):
                of_class = _Pairs(*(column[pairs.ids == k] for column in pairs))
                for a, limits in enumerate(params.areaRng):
                    precision_TSKA[:, :, k - 1, a], recall_TKA[:, k - 1, a] = _curves(of_class, limits, params)
        # An image has one detection of a category at most, so their maximum number has no effect.
        precision_TSKAM, recall_TKAM = (
            np.repeat(each[..., None], len(params.maxDets), -1) for each in (precision_TSKA, recall_TKA)
        )
        return summarize(precision_TSKAM, recall_TKAM)


def _curves(pairs: _Pairs, limits: tuple[float, float], params: Params) -> tuple[np.ndarray, np.ndarray]:
    """Returns interpolated precision (T, S) and the highest recall (T,) of a class, as COCO defines them.

    Args:
        pairs: of the class, in the order of the frames.
        limits: least and greatest area; other true instances, and detections that match them or match none and
            have another area, are ignored.
        params: the thresholds.

    Returns:
        -1 everywhere if there is no true instance of these areas.
    """
    least, greatest = limits
    outside_R, outside_D = ((area < least) | (area > greatest) for area in (pairs.true, pairs.predicted))
    truths = np.count_nonzero((pairs.true > 0) & ~outside_R)
    shape = len(params.iouThrs), len(params.recThrs)
    if not truths:
        return np.full(shape, -1.0), np.full(shape[0], -1.0)
    order_D = (-pairs.score).argsort(kind="stable")
    order_D = order_D[pairs.predicted[order_D] > 0]
    if not order_D.size:
        return np.zeros(shape), np.zeros(shape[0])
    iou_D = (pairs.both / (pairs.true + pairs.predicted - pairs.both))[order_D]
    matched_TD = iou_D >= params.iouThrs[:, None]
    counted_TD = ~np.where(matched_TD, outside_R[order_D], outside_D[order_D])
    true_positives_TD = (matched_TD & counted_TD).cumsum(1)
    recall_TD = true_positives_TD / truths
    precision_TD = true_positives_TD / np.maximum(counted_TD.cumsum(1), 1)
    highest_TD = np.maximum.accumulate(precision_TD[:, ::-1], 1)[:, ::-1]
    highest_TD = np.pad(highest_TD, ((0, 0), (0, 1)))  # a recall that is never reached has precision 0
    indices_TS = [recall_D.searchsorted(params.recThrs) for recall_D in recall_TD]
    return np.take_along_axis(highest_TD, np.stack(indices_TS), 1), recall_TD[:, -1]
