"""True positives, false positives and misses per image: COCO's matching at IoU 0.50 and one score threshold.

Legend: D detections, G truths, I images, P matched pairs.
"""

from dataclasses import dataclass

import numpy as np

from maskcast.evaluation.coco.evaluator import CocoScores, build_evaluation
from maskcast.evaluation.definitions import IOU


@dataclass(frozen=True)
class Matches:
    """The matches of an evaluation at the score threshold of its best F1.

    Args:
        threshold: The score at which F1 over all images and categories is highest; 0 without detections.
        matched_G: Truths that are matched by a detection at or above the threshold.
        true_positive_D: these detections.
        false_positive_D: Unmatched detections at or above the threshold, except those that match a crowd.
        f1_I: Per image 2 TP / (2 TP + FP + FN); 1 without truths and detections.
        true_positives_I: Number per image, in the order of the truth's images, as in the next two.
        false_positives_I: Number per image.
        false_negatives_I: Unmatched truths per image, without crowds.
    """

    threshold: float
    matched_G: np.ndarray
    true_positive_D: np.ndarray
    false_positive_D: np.ndarray
    f1_I: np.ndarray
    true_positives_I: np.ndarray
    false_positives_I: np.ndarray
    false_negatives_I: np.ndarray


def match(scores: CocoScores) -> Matches:
    """Matches detections and truths at IoU 0.50, and finds the score threshold of the highest F1."""
    crowd_G = np.array([bool(record.get("iscrowd")) for record in scores.truth.annotations], bool)
    score_D = np.array([record["score"] for record in scores.detections], float)
    detection_P, truth_P = _pairs(scores)
    on_crowd_P = crowd_G[truth_P]
    truth_D = np.full(score_D.size, -1)
    truth_D[detection_P[~on_crowd_P]] = truth_P[~on_crowd_P]
    counted_D = np.ones(score_D.size, bool)
    counted_D[detection_P[on_crowd_P]] = False
    threshold = _best_threshold(score_D, truth_D >= 0, counted_D, int((~crowd_G).sum()))

    true_positive_D = (truth_D >= 0) & (score_D >= threshold)
    false_positive_D = counted_D & (truth_D < 0) & (score_D >= threshold)
    matched_G = np.zeros(crowd_G.size, bool)
    matched_G[truth_D[true_positive_D]] = True
    ids = [image["id"] for image in scores.truth.images]
    index_by_id = {image_id: i for i, image_id in enumerate(ids)}
    image_D = np.array([index_by_id[record["image_id"]] for record in scores.detections], int)
    image_G = np.array([index_by_id[record["image_id"]] for record in scores.truth.annotations], int)
    true_positives_I, false_positives_I, false_negatives_I = (
        np.bincount(images[selected], minlength=len(ids))
        for images, selected in (
            (image_D, true_positive_D),
            (image_D, false_positive_D),
            (image_G, ~matched_G & ~crowd_G),
        )
    )
    total_I = 2 * true_positives_I + false_positives_I + false_negatives_I
    f1_I = np.where(total_I > 0, 2 * true_positives_I / np.maximum(total_I, 1), 1.0)
    return Matches(
        threshold,
        matched_G,
        true_positive_D,
        false_positive_D,
        f1_I,
        true_positives_I,
        false_positives_I,
        false_negatives_I,
    )


def _pairs(scores: CocoScores) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of matched detections and of their truths, (P,) each."""
    if not scores.detections or not scores.truth.annotations:
        return np.zeros(0, int), np.zeros(0, int)
    evaluation = build_evaluation(scores.truth, scores.detections, scores.kind)
    # The library lists the pairs of all thresholds and areas together, so it gets only one of each.
    evaluation.params.iouThrs = np.array([IOU])
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    # COCO evaluates 100 per image and category; further ones would always count as false positives.
    evaluation.params.maxDets = [len(scores.detections)]
    evaluation.evaluate()
    pairs_P2 = np.array([key.split("_") for key in evaluation.eval["matched"]], int).reshape(-1, 2) - 1
    return pairs_P2[:, 0], pairs_P2[:, 1]


def _best_threshold(score_D: np.ndarray, true_positive_D: np.ndarray, counted_D: np.ndarray, truths: int) -> float:
    if not score_D.size:
        return 0.0
    order_D = (-score_D).argsort(kind="stable")
    f1_D = 2 * true_positive_D[order_D].cumsum() / np.maximum(counted_D[order_D].cumsum() + truths, 1)
    ends_D = np.r_[np.diff(score_D[order_D]) < 0, True]  # a threshold cannot separate equal scores
    return float(score_D[order_D][ends_D][f1_D[ends_D].argmax()])
