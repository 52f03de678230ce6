"""Scores detections as COCO does, boxes and masks alike.

    truth = read_truth(Path("instances_val2017.json"), "bbox")
    scores = evaluate(truth, read_detections(Path("results.json"), truth, "bbox"), "bbox")
    print(scores.table())

Legend: D detections, G truths, T = 10 IoU thresholds .50:.05:.95, R = 101 recalls 0:.01:1, K categories, A = 4
ranges of areas (the first holds all), M = 3 maximum numbers of detections (the last is 100).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCOeval_faster
from faster_coco_eval.core import mask as rle

from maskcast.evaluation.coco.assignment import assign_truths, find_candidates
from maskcast.evaluation.coco.curves import PARAMS, precision_and_recall

Kind = Literal["bbox", "segm"]
Record = Mapping[str, Any]

# The twelve numbers of the COCO summary in its order, by the names of its leaderboard, and their lines.
SUMMARY_LINES = {
    "AP": " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]",
    "AP50": " Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ]",
    "AP75": " Average Precision  (AP) @[ IoU=0.75      | area=   all | maxDets=100 ]",
    "AP_small": " Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ]",
    "AP_medium": " Average Precision  (AP) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ]",
    "AP_large": " Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ]",
    "AR1": " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ]",
    "AR10": " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets= 10 ]",
    "AR100": " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ]",
    "AR_small": " Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ]",
    "AR_medium": " Average Recall     (AR) @[ IoU=0.50:0.95 | area=medium | maxDets=100 ]",
    "AR_large": " Average Recall     (AR) @[ IoU=0.50:0.95 | area= large | maxDets=100 ]",
}
IOU_50, IOU_75 = 0, 5  # indices among the ten thresholds


@dataclass(frozen=True)
class Truth:
    """A COCO ground truth whose keys were checked (`maskcast.evaluation.coco.files.read_truth`).

    Args:
        images: Each with `id`; `height` and `width` for masks; `file_name` for pictures.
        categories: Each with `id` and `name`.
        annotations: Each with `image_id`, `category_id`, `area`, `bbox` (x, y, width, height in pixels) or
            `segmentation` (compressed RLE), and perhaps `iscrowd`. Their ids are not used.
    """

    images: Sequence[Record]
    categories: Sequence[Record]
    annotations: Sequence[Record]


@dataclass(frozen=True)
class CategoryScores:
    """The scores of one category; NaN if the truth has none of it."""

    id: int
    name: str
    truths: int  # crowds are not counted
    detections: int
    AP: float
    AP50: float
    AP75: float
    AR100: float


@dataclass(frozen=True)
class CocoScores:
    """The results of an evaluation.

    Args:
        truth: The ground truth.
        detections: The detections, as records of a COCO results file.
        kind: Whether boxes or masks are compared.
        truth_TD: Index of the truth of each detection, whatever its area; -1 for none (see `assignment`).
        counted_TD: Which detections are true or false; others match a crowd.
        rank_D: How many detections of the same image and category come before each.
        precision_TRK: Interpolated precision at each recall, for all areas and 100 detections per image and
            category; -1 for categories without truth.
        recall_TK: Highest recall, likewise.
        summary: The twelve numbers by name, each in 0..1; NaN where there is no truth (COCO prints -1).
    """

    truth: Truth
    detections: Sequence[Record]
    kind: Kind
    truth_TD: np.ndarray
    counted_TD: np.ndarray
    rank_D: np.ndarray
    precision_TRK: np.ndarray
    recall_TK: np.ndarray
    summary: Mapping[str, float]

    def table(self) -> str:
        """Returns the twelve lines as COCO's own evaluator prints them."""
        return "\n".join(
            f"{line} = {-1 if np.isnan(self.summary[name]) else self.summary[name]:0.3f}"
            for name, line in SUMMARY_LINES.items()
        )

    def flat(self) -> dict[str, float]:
        """Returns those of the twelve numbers that are finite, and the counts of images, truths and detections."""
        counts = {
            "images": len(self.truth.images),
            "truths": len(self.truth.annotations),
            "detections": len(self.detections),
        }
        return {name: value for name, value in self.summary.items() if np.isfinite(value)} | {
            name: float(count) for name, count in counts.items()
        }

    @cached_property
    def per_category(self) -> list[CategoryScores]:
        """The scores of each category, by id."""
        categories = sorted(self.truth.categories, key=lambda category: category["id"])
        ids = np.array([category["id"] for category in categories])
        truths_K = _counts(
            [record["category_id"] for record in self.truth.annotations if not record.get("iscrowd")], ids
        )
        detections_K = _counts([record["category_id"] for record in self.detections], ids)
        ap_TK = self.precision_TRK.mean(axis=1)
        return [
            CategoryScores(
                category["id"],
                category["name"],
                int(truths_K[k]),
                int(detections_K[k]),
                AP=_or_nan(ap_TK[:, k].mean()),
                AP50=_or_nan(ap_TK[IOU_50, k]),
                AP75=_or_nan(ap_TK[IOU_75, k]),
                AR100=_or_nan(self.recall_TK[:, k].mean()),
            )
            for k, category in enumerate(categories)
        ]

    def curves(self) -> dict[str, np.ndarray]:
        """Returns precision at the 101 recalls by IoU threshold, averaged over the categories with truth.

        The mean of a curve is an AP: AP50 for `IoU=0.50`, AP75 for `IoU=0.75`, AP for `IoU=0.50:0.95`.
        """
        precision_TRK = self.precision_TRK[:, :, self.precision_TRK[0, 0] >= 0]
        if not precision_TRK.size:
            precision_TRK = np.full((*precision_TRK.shape[:2], 1), np.nan)
        mean_TR = precision_TRK.mean(axis=2)
        return {"IoU=0.50:0.95": mean_TR.mean(axis=0), "IoU=0.50": mean_TR[IOU_50], "IoU=0.75": mean_TR[IOU_75]}


def evaluate(truth: Truth, detections: Sequence[Record], kind: Kind) -> CocoScores:
    """Scores detections against a ground truth.

    Args:
        truth: The ground truth.
        detections: Records of a COCO results file with `image_id`, `category_id`, `score` and `bbox` or
            `segmentation` (compressed RLE), with ids of `truth`. External files are checked by
            `maskcast.evaluation.coco.files`. Without any detections all scores are 0.
        kind: `bbox` compares boxes; `segm` compares masks, whose area decides whether they are small, medium or
            large.
    """
    shape, truths = "bbox" if kind == "bbox" else "segmentation", truth.annotations
    crowd_G = np.array([bool(record.get("iscrowd")) for record in truths], bool)
    area_G, area_D = np.array([record["area"] for record in truths], float), _areas(detections, shape)
    candidates = find_candidates(truths, detections, shape)
    truth_ATD, counted_ATD, ignored_AG = [], [], []
    for least, greatest in PARAMS.areaRng:
        outside_G, outside_D = ((area < least) | (area > greatest) for area in (area_G, area_D))
        ignored_G = crowd_G | outside_G
        truth_TD = assign_truths(candidates, crowd_G, ignored_G)
        truth_ATD.append(truth_TD)
        counted_ATD.append(~np.where(truth_TD >= 0, np.r_[ignored_G, False][truth_TD], outside_D))
        ignored_AG.append(ignored_G)

    ids = sorted(category["id"] for category in truth.categories)
    category_G, category_D = (_column(records, "category_id") for records in (truths, detections))
    surest_first_D = np.lexsort((_column(detections, "image_id"), -_column(detections, "score")))
    sizes = [len(each) for each in (PARAMS.iouThrs, PARAMS.recThrs, ids, PARAMS.areaRng, PARAMS.maxDets)]
    precision_TRKAM, recall_TKAM = np.full(sizes, -1.0), np.full([sizes[0], *sizes[2:]], -1.0)
    for k, category_id in enumerate(ids):
        of_category_D = surest_first_D[category_D[surest_first_D] == category_id]
        for a, (truth_TD, counted_TD, ignored_G) in enumerate(
            zip(truth_ATD, counted_ATD, ignored_AG, strict=True)
        ):
            if not (count := int(np.count_nonzero((category_G == category_id) & ~ignored_G))):
                continue
            for m, most in enumerate(PARAMS.maxDets):
                own_D = of_category_D[candidates.rank_D[of_category_D] < most]
                precision_TRKAM[:, :, k, a, m], recall_TKAM[:, k, a, m] = precision_and_recall(
                    truth_TD[:, own_D] >= 0, counted_TD[:, own_D], count
                )
    return CocoScores(
        truth,
        detections,
        kind,
        truth_ATD[0],
        counted_ATD[0],
        candidates.rank_D,
        precision_TRKAM[..., 0, -1],
        recall_TKAM[..., 0, -1],
        summarize(precision_TRKAM, recall_TKAM),
    )


def summarize(precision_TRKAM: np.ndarray, recall_TKAM: np.ndarray) -> dict[str, float]:
    """Returns the twelve numbers by name, each in 0..1; NaN where there is no truth (precision and recall -1)."""
    evaluation = COCOeval_faster(print_function=lambda *_: None)
    evaluation.eval = {"precision": precision_TRKAM, "recall": recall_TKAM}
    evaluation.summarize()
    return {name: _or_nan(value) for name, value in zip(SUMMARY_LINES, evaluation.stats, strict=False)}


def _areas(detections: Sequence[Record], shape: str) -> np.ndarray:
    if not detections:
        return np.zeros(0)
    if shape == "bbox":
        return np.array([record["bbox"] for record in detections], float)[:, 2:].prod(axis=1)
    return rle.area([record["segmentation"] for record in detections])


def _column(records: Sequence[Record], key: str) -> np.ndarray:
    return np.array([record[key] for record in records])


def _counts(category_ids: Sequence[int], ids_K: np.ndarray) -> np.ndarray:
    """Returns how often each of the sorted ids occurs, (K,)."""
    return np.bincount(np.searchsorted(ids_K, category_ids), minlength=len(ids_K))


def _or_nan(value: float) -> float:
    return float(value) if value >= 0 else float("nan")
