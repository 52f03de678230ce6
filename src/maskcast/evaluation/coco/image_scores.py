"""AP of each image, for paired comparisons of two detectors.

Legend: I images, P pairs of an image and a category with truth in it, T = 10 IoU thresholds, R = 101 recalls.
"""

from collections.abc import Iterable

import numpy as np

from maskcast.evaluation.coco.evaluator import CocoScores, Record, Truth, build_evaluation

CHUNK = 4096  # limits memory: the library needs 16 KiB per pair


def average_precision(scores: CocoScores) -> np.ndarray:
    """Returns the AP of each image as if it were the only one, (I,) float64; NaN where it has no truth.

    As in COCO, it is precision at 101 recalls, averaged over the IoU thresholds .50:.05:.95 and over the
    categories with truth in the image. Detections of other categories are ignored.
    """
    index_by_id = {image["id"]: i for i, image in enumerate(scores.truth.images)}
    pairs = sorted({_pair(record) for record in scores.truth.annotations if not record.get("iscrowd")})
    total_I, count_I = np.zeros(len(index_by_id)), np.zeros(len(index_by_id))
    for start in range(0, len(pairs), CHUNK):
        chosen = pairs[start : start + CHUNK]
        images_P = [index_by_id[image_id] for image_id, _ in chosen]
        np.add.at(total_I, images_P, _pair_precision(scores, chosen))
        np.add.at(count_I, images_P, 1)
    return np.where(count_I > 0, total_I / np.maximum(count_I, 1), np.nan)


def _pair_precision(scores: CocoScores, pairs: list[tuple[int, int]]) -> np.ndarray:
    """Returns the AP of each pair, (P,). In one run, pairs are treated as categories of a single image."""
    number = {pair: p for p, pair in enumerate(pairs)}
    truth = Truth(
        [{"id": 0, "height": 1, "width": 1}],  # the library requires a size, which has no effect
        [{"id": p, "name": str(p)} for p in number.values()],
        _renumbered(scores.truth.annotations, number),
    )
    evaluation = build_evaluation(truth, _renumbered(scores.detections, number), scores.kind)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [100]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval["precision"][..., 0, 0].mean(axis=(0, 1))


def _renumbered(records: Iterable[Record], number: dict[tuple[int, int], int]) -> list[Record]:
    return [{**one, "image_id": 0, "category_id": number[_pair(one)]} for one in records if _pair(one) in number]


def _pair(record: Record) -> tuple[int, int]:
    return record["image_id"], record["category_id"]
