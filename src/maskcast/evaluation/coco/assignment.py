"""Assigns truths to detections as COCO does, at all IoU thresholds.

A detection may get a truth of its image and category. The surest detection comes first. It gets the truth with the
highest IoU among those that are left; a crowd is always left. Truths that are ignored (crowds, and those of other
areas) are given only if no other is left.

Legend: T = 10 IoU thresholds .50:.05:.95, D detections, G truths, C candidates: pairs of a detection and a truth
whose IoU is at least the lowest threshold.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval.core import mask as rle

from maskcast.evaluation.coco.curves import PARAMS

Records = Sequence[Mapping[str, Any]]


class Candidates(NamedTuple):
    """Which detections may get which truths, and the order in which they do."""

    detection_C: np.ndarray
    truth_C: np.ndarray
    iou_C: np.ndarray
    rank_D: np.ndarray
    """How many detections of the same image and category come before each."""


def find_candidates(
    truths: Sequence[Mapping[str, Any]], detections: Sequence[Mapping[str, Any]], shape: str
) -> Candidates:
    """Returns the candidates.

    Args:
        truths: See `evaluator.Truth.annotations`.
        detections: See `evaluator.evaluate`.
        shape: Key of what is compared: `bbox` or `segmentation`.
    """
    rank_D = np.zeros(len(detections), int)
    found = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    truths_of = _by_image_and_category(truths)
    for key, own in _by_image_and_category(detections).items():
        own.sort(key=lambda d: -detections[d]["score"])
        rank_D[own] = range(len(own))
        if theirs := truths_of.get(key):
            iou = rle.iou(
                [detections[d][shape] for d in own],
                [truths[g][shape] for g in theirs],
                [int(bool(truths[g].get("iscrowd"))) for g in theirs],
            )
            d, g = np.nonzero(iou >= PARAMS.iouThrs[0])
            found.append((np.array(own)[d], np.array(theirs)[g], iou[d, g]))
    detection_C, truth_C, iou_C = map(np.concatenate, zip(*found, strict=True))
    return Candidates(detection_C, truth_C, iou_C, rank_D)


def assign_truths(candidates: Candidates, crowd_G: np.ndarray, ignored_G: np.ndarray) -> np.ndarray:
    """Returns the index of the truth of each detection, (T, D); -1 for none.

    Args:
        candidates: See `find_candidates`.
        crowd_G: Which truths are crowds.
        ignored_G: Which truths are ignored.
    """
    detection_C, truth_C, iou_C, rank_D = candidates
    rank_C = rank_D[detection_C]
    # Of a detection's candidates that are left, the last is the best. Of equal IoUs COCO takes the last.
    order_C = np.lexsort((truth_C, iou_C, ~ignored_G[truth_C], detection_C, rank_C))
    detection_C, truth_C, rank_C = detection_C[order_C], truth_C[order_C], rank_C[order_C]
    passes_TC = iou_C[order_C] >= PARAMS.iouThrs[:, None]
    truth_TD = np.full((len(PARAMS.iouThrs), len(rank_D)), -1, np.int32)
    taken_TG = np.zeros((len(PARAMS.iouThrs), len(crowd_G)), bool)
    # Detections with the same rank do not compete, as they differ in image or category.
    for start, stop in pairwise([*np.unique(rank_C, return_index=True)[1].tolist(), len(rank_C)]):
        truth_c = truth_C[start:stop]
        left_Tc = passes_TC[:, start:stop] & ~taken_TG[:, truth_c]
        detection_d, first_d = np.unique(detection_C[start:stop], return_index=True)
        best_Td = np.maximum.reduceat(np.where(left_Tc, np.arange(stop - start), -1), first_d, axis=1)
        t, d = np.nonzero(best_Td >= 0)
        truths = truth_c[best_Td[t, d]]
        truth_TD[t, detection_d[d]] = truths
        taken_TG[t, truths] = ~crowd_G[truths]
    return truth_TD


def _by_image_and_category(records: Records) -> dict[tuple[int, int], list[int]]:
    """Returns the indices of the records of each image and category."""
    found: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for n, record in enumerate(records):
        found[record["image_id"], record["category_id"]].append(n)
    return found
