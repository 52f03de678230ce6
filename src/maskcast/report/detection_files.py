"""The report of a detector's evaluation: numbers, tables and pictures in one folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskcast.evaluation.coco.evaluator import CocoScores
from maskcast.evaluation.coco.image_scores import average_precision
from maskcast.evaluation.coco.matches import Matches, match
from maskcast.evaluation.definitions import DETECTIONS
from maskcast.report.detection_pictures import draw_images
from maskcast.report.tables import csv_number, markdown, write_csv
from maskcast.writing import write_json

CATEGORY_SCORES = ("AP", "AP50", "AP75", "AR100")
FILES = {
    "table.txt": "the twelve lines of COCO's summary; -1 if no such truth exists",
    "metrics.json": "the same numbers by name, without those that are -1",
    "per_category.csv, per_category.md": "AP, AP50, AP75 and AR100 of each category; empty where it has no truth",
    "precision_recall.csv": "precision at 101 recalls, mean over categories; a column's mean is AP, AP50 or AP75",
    "per_image.csv": "AP and f1 of each image, and what was found and missed in it; worst f1 first",
    "pictures.png, pictures/": "where images are given: from best F1 to worst, truth left, detections right",
}


def write_report(
    folder: Path, scores: CocoScores, images: Path | None = None, pictures: int = 8, notes: Sequence[str] = ()
) -> None:
    """Writes the files in `FILES` to a folder.

    Args:
        folder: An empty folder.
        scores: What to report.
        images: Folder of the images (`file_name` in the truth); None draws no pictures.
        pictures: Number of images to draw, from the best to the worst.
        notes: Sentences on scores that are too high (`evaluation.notes`).

    Raises:
        MaskcastError: An image cannot be read.
    """
    matches = match(scores)
    (folder / "table.txt").write_text(scores.table() + "\n", encoding="utf-8")
    write_json(folder / "metrics.json", scores.flat())
    _write_categories(folder, scores)
    _write_curves(folder, scores)
    _write_images(folder, scores, matches)
    if images is not None and pictures:
        draw_images(folder, scores, matches, images, pictures)
    lines = [
        "# COCO evaluation",
        "",
        " ".join([f"Compared by {scores.kind}.", *notes]),
        "",
        "```",
        scores.table(),
        "```",
        "",
    ]
    lines += [f"- `{name}`: {text}." for name, text in DETECTIONS.items()]
    lines += ["", "## Files", ""] + [f"- `{name}`: {text}." for name, text in FILES.items()]
    lines += [
        "",
        f"Images are ranked by f1; F1 over all images is highest at a score of {matches.threshold:.4f}. The mean "
        "of AP over images is not the AP above, which ranks the detections of all images together.",
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")


def _write_categories(folder: Path, scores: CocoScores) -> None:
    rows = [
        [
            *map(str, (category.id, category.name, category.truths, category.detections)),
            *(csv_number(getattr(category, key)) for key in CATEGORY_SCORES),
        ]
        for category in scores.per_category
    ]
    header = ["id", "category", "truths", "detections", *CATEGORY_SCORES]
    write_csv(folder / "per_category.csv", header, rows)
    (folder / "per_category.md").write_text(markdown(header, rows), encoding="utf-8")


def _write_curves(folder: Path, scores: CocoScores) -> None:
    recall = np.linspace(0, 1, 101)
    curves = scores.curves()
    rows = [[f"{x:.2f}", *(csv_number(curve[n]) for curve in curves.values())] for n, x in enumerate(recall)]
    write_csv(folder / "precision_recall.csv", ["recall", *curves], rows)


def _write_images(folder: Path, scores: CocoScores, matches: Matches) -> None:
    ap_I = average_precision(scores)
    rows = [
        [
            scores.truth.images[i]["id"],
            scores.truth.images[i].get("file_name", ""),
            csv_number(ap_I[i]),
            csv_number(matches.f1_I[i]),
            *(
                int(counts[i])
                for counts in (matches.true_positives_I, matches.false_positives_I, matches.false_negatives_I)
            ),
        ]
        for i in matches.f1_I.argsort(kind="stable")
    ]
    write_csv(folder / "per_image.csv", ["id", "file_name", "AP", "f1", "right", "false_alarms", "missed"], rows)
