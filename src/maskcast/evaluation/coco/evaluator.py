"""Scores detections as COCO does, boxes and masks alike, on faster-coco-eval.

    truth = read_truth(Path("instances_val2017.json"), "bbox")
    scores = evaluate(truth, read_detections(Path("results.json"), truth, "bbox"), "bbox")
    print(scores.table())

Legend: T = 10 IoU thresholds .50:.05:.95, R = 101 recalls 0:.01:1, K categories, A = 4 ranges of areas (the first
holds all), M = 3 maximum numbers of detections (the last is 100).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from faster_coco_eval.core import mask as rle
from faster_coco_eval.core.cocoeval import Params

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
        precision_TRK: Interpolated precision at each recall, for all areas and 100 detections per image and
            category; -1 for categories without truth.
        recall_TK: Highest recall, likewise.
        summary: The twelve numbers by name, each in 0..1; NaN where there is no truth (COCO prints -1).
    """

    truth: Truth
    detections: Sequence[Record]
    kind: Kind
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
    truths_of, detections_of = _by_category(truth.annotations), _by_category(detections)
    params = Params(kind)
    sizes = [len(getattr(params, name)) for name in ("iouThrs", "recThrs", "areaRng", "maxDets")]
    precision_TRKAM = np.full((*sizes[:2], len(truth.categories), *sizes[2:]), -1.0)
    recall_TKAM = np.full((sizes[0], len(truth.categories), *sizes[2:]), -1.0)
    for k, category in enumerate(sorted(truth.categories, key=lambda category: category["id"])):
        truths, found = truths_of[category["id"]], detections_of[category["id"]]
        if not truths:
            continue
        # The library's memory grows with images times categories, so it gets only the images that matter.
        image_ids = {record["image_id"] for record in (*truths, *found)}
        images = [image for image in truth.images if image["id"] in image_ids]
        one = build_evaluation(Truth(images, [category], truths), found, kind)
        one.evaluate()
        one.accumulate()
        precision_TRKAM[:, :, k], recall_TKAM[:, k] = one.eval["precision"][:, :, 0], one.eval["recall"][:, 0]
    summary = summarize(precision_TRKAM, recall_TKAM)
    return CocoScores(truth, detections, kind, precision_TRKAM[..., 0, -1], recall_TKAM[..., 0, -1], summary)


def summarize(precision_TRKAM: np.ndarray, recall_TKAM: np.ndarray) -> dict[str, float]:
    """Returns the twelve numbers by name, each in 0..1; NaN where there is no truth (precision and recall -1)."""
    evaluation = COCOeval_faster(print_function=lambda *_: None)
    evaluation.eval = {"precision": precision_TRKAM, "recall": recall_TKAM}
    evaluation.summarize()
    return {name: _or_nan(value) for name, value in zip(SUMMARY_LINES, evaluation.stats, strict=False)}


def _by_category(records: Sequence[Record]) -> defaultdict[int, list[Record]]:
    found = defaultdict(list)
    for record in records:
        found[record["category_id"]].append(record)
    return found


def build_evaluation(truth: Truth, detections: Sequence[Record], kind: Kind) -> COCOeval_faster:
    """Returns the library's evaluation, not yet run.

    Truths and detections are numbered from 1, because the library uses id 0 for "unmatched".
    """
    shape = "bbox" if kind == "bbox" else "segmentation"
    keys = ("image_id", "category_id", "area", shape)
    numbered_truths = [
        {key: record[key] for key in keys} | {"id": n, "iscrowd": record.get("iscrowd") or 0}
        for n, record in enumerate(truth.annotations, 1)
    ]
    numbered_detections = [
        {
            "id": n,
            "image_id": record["image_id"],
            "category_id": record["category_id"],
            "score": record["score"],
            "area": area,
            "iscrowd": 0,
            shape: record[shape],
        }
        for n, (record, area) in enumerate(zip(detections, _areas(detections, shape), strict=True), 1)
    ]
    images = [{key: image[key] for key in ("id", "height", "width") if key in image} for image in truth.images]
    categories = [dict(category) for category in truth.categories]
    sides = [
        COCO({"images": images, "categories": categories, "annotations": side})
        for side in (numbered_truths, numbered_detections)
    ]
    return COCOeval_faster(*sides, kind, print_function=lambda *_: None)


def _areas(detections: Sequence[Record], shape: str) -> list[float]:
    if not detections:
        return []
    if shape == "bbox":
        return np.array([record["bbox"] for record in detections], float)[:, 2:].prod(axis=1).tolist()
    return rle.area([record["segmentation"] for record in detections]).tolist()


def _counts(category_ids: Sequence[int], ids_K: np.ndarray) -> np.ndarray:
    """Returns how often each of the sorted ids occurs, (K,)."""
    return np.bincount(np.searchsorted(ids_K, category_ids), minlength=len(ids_K))


def _or_nan(value: float) -> float:
    return float(value) if value >= 0 else float("nan")
