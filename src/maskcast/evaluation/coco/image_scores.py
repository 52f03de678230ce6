"""AP of each image, for paired comparisons of two detectors.

Legend: I images, P pairs of an image and a category with truth in it, D their detections, G truths, T = 10 IoU
thresholds, R = 101 recalls.
"""

import numpy as np

from maskcast.evaluation.coco.curves import PARAMS
from maskcast.evaluation.coco.evaluator import CocoScores, Record


def average_precision(scores: CocoScores) -> np.ndarray:
    """Returns the AP of each image as if it were the only one, (I,) float64; NaN where it has no truth.

    As in COCO, it is precision at 101 recalls, averaged over the IoU thresholds .50:.05:.95 and over the
    categories with truth in the image. Detections of other categories are ignored.
    """
    index_by_id = {image["id"]: i for i, image in enumerate(scores.truth.images)}
    truths_of: dict[tuple[int, int], int] = {}
    for record in scores.truth.annotations:
        if not record.get("iscrowd"):
            truths_of[_pair(record)] = truths_of.get(_pair(record), 0) + 1
    number = {pair: p for p, pair in enumerate(sorted(truths_of))}
    ap_P = _average_precision(scores, number, np.array([truths_of[pair] for pair in number]))
    total_I, count_I = np.zeros(len(index_by_id)), np.zeros(len(index_by_id))
    images_P = [index_by_id[image_id] for image_id, _ in number]
    np.add.at(total_I, images_P, ap_P)
    np.add.at(count_I, images_P, 1)
    return np.where(count_I > 0, total_I / np.maximum(count_I, 1), np.nan)


def _average_precision(scores: CocoScores, number: dict[tuple[int, int], int], truths_P: np.ndarray) -> np.ndarray:
    """Returns the AP of each pair, (P,)."""
    pair_D = np.array([number.get(_pair(record), -1) for record in scores.detections], int)
    own_D = np.flatnonzero((pair_D >= 0) & (scores.rank_D < PARAMS.maxDets[-1]))
    own_D = own_D[np.lexsort((scores.rank_D[own_D], pair_D[own_D]))]
    pair_D, rank_D, counted_TD = pair_D[own_D], scores.rank_D[own_D], scores.counted_TD[:, own_D]
    first_D = np.arange(len(own_D)) - rank_D  # index of the first detection of the pair
    right_TD = counted_TD & (scores.truth_TD[:, own_D] >= 0)
    hits_TD, shown_TD = (_sums(each_TD, first_D) for each_TD in (right_TD, counted_TD))
    highest_TD = hits_TD / np.maximum(shown_TD, 1)
    for rank in range(int(rank_D.max(initial=0)), 0, -1):  # the highest precision from here on
        later = np.flatnonzero(rank_D == rank)
        highest_TD[:, later - 1] = np.maximum(highest_TD[:, later - 1], highest_TD[:, later])
    reached_TD = np.searchsorted(PARAMS.recThrs, hits_TD / truths_P[pair_D], "right")
    new_TD = reached_TD - np.where(rank_D > 0, np.roll(reached_TD, 1, axis=1), 0)
    ap_D = (highest_TD * new_TD).sum(0) / (len(PARAMS.recThrs) * len(PARAMS.iouThrs))
    return np.bincount(pair_D, ap_D, minlength=len(truths_P))


def _sums(values_TD: np.ndarray, first_D: np.ndarray) -> np.ndarray:
    """Returns how many values are true from the first detection of a pair up to each one."""
    before_TD = np.pad(values_TD.cumsum(1), ((0, 0), (1, 0)))
    return before_TD[:, 1:] - before_TD[:, first_D]


def _pair(record: Record) -> tuple[int, int]:
    return record["image_id"], record["category_id"]
