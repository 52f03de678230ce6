"""evaluate_detector: score a detector with the COCO metrics, with tables, curves and pictures."""

import json
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from maskcast.errors import MaskcastError
from maskcast.params import Batch, Params
from maskcast.reading import first_few
from maskcast.runner.stage import InPath, OutPath, stage
from maskcast.writing import write_json


class EvaluateDetector(Params):
    """Params of evaluate_detector."""

    split: Literal["train", "val"] = "val"
    """Split whose images are scored."""
    batch_size: Batch = 8
    """Images per batch; they are padded to one size, which can change the last digits of a score."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`bf16`: autocast; `fp32`: everything in fp32."""
    pictures: int = Field(8, ge=0)
    """Number of images drawn with their boxes, spread from the best to the worst."""


@stage
def evaluate_detector(
    *, dataset: InPath, detector: InPath, metrics: OutPath, report: OutPath, params: EvaluateDetector
) -> None:
    """Scores a detector with the COCO metrics, with tables, curves and pictures.

    Args:
        dataset: output of ``prepare_detection``.
        detector: output of ``train_detector``.
        metrics: JSON, flat numbers; the report's README.md explains them.
        report: folder of tables and curves (CSV, Markdown), pictures (PNG), ``evaluation.json``: all scores, and
            the digests of data and model, and ``detections.json``: a COCO results file with the image and category
            ids of the source and boxes in pixels of the prepared images.
        params: split, precision and number of pictures.

    Raises:
        MaskcastError: if the detector was trained for other classes.
    """
    from functools import partial

    from maskcast.data.clip_store.frame_index import in_batches
    from maskcast.data.detection.dataset import DetectionSet
    from maskcast.data.trained_frames import hashes_of_files
    from maskcast.digest import digest_tree
    from maskcast.evaluation import definitions
    from maskcast.evaluation.coco.evaluator import evaluate
    from maskcast.evaluation.coco.files import read_truth
    from maskcast.evaluation.notes import warn_of_trained
    from maskcast.evaluation.record import DETECTIONS, write_record
    from maskcast.inference.detect import detect
    from maskcast.models.arithmetic import performed
    from maskcast.models.base import best_device
    from maskcast.models.detection.table import load_detector
    from maskcast.progress import report_folder, report_section, say, track
    from maskcast.report.detection_files import write_report
    from maskcast.report.detection_page import detection_sections

    data = DetectionSet(dataset)
    model, description = load_detector(detector)
    if tuple(description["meta"]["classes"]) != data.classes:
        raise MaskcastError(
            f"{detector}: its classes ({_join_names(description['meta']['classes'])}) differ from the classes of "
            f"{dataset} ({_join_names(data.classes)}); train a detector on this data set"
        )
    split = data.split(params.split)
    batches = track(in_batches(range(len(split)), params.batch_size), "detecting in batches")
    device = best_device()
    detections = list(detect(model.to(device), split, batches, params.precision))
    scores = evaluate(read_truth(split.truth, "bbox"), detections, "bbox")
    notes = warn_of_trained(detector, "the detector", partial(hashes_of_files, split.paths), "image")
    flat = scores.flat()
    write_json(metrics, flat)

    report.mkdir()
    write_report(report, scores, dataset / "images" / params.split, params.pictures, notes)
    for title, section in detection_sections(scores, report, params.split, notes).items():
        report_section(title, section)
    write_record(
        report / "evaluation.json",
        DETECTIONS,
        definitions.DETECTIONS,
        scores=flat,
        **params.model_dump(include={"split", "batch_size", "precision"}),
        arithmetic=performed(device, params.precision),
        data=split.digest(),
        dataset=data.digest,
        detector=digest_tree(detector),
    )
    original_ids = [each | {"category_id": data.original_ids[each["category_id"]]} for each in detections]
    (report / "detections.json").write_text(json.dumps(original_ids) + "\n", encoding="utf-8")
    report_folder(report)
    say(scores.table())


def _join_names(names: Sequence[str]) -> str:
    return first_few(names, 3, f", ... {len(names)} in all")
