"""The command `evaluate-coco`: scores a COCO results file of any tool against a ground truth."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from maskcast.errors import MaskcastError
from maskcast.memory import gc_paused
from maskcast.reading import pluralize
from maskcast.runner.outputs import atomic_output, check_not_exists

if TYPE_CHECKING:  # else --help would need `maskcast[train]`
    from maskcast.evaluation.coco.evaluator import CocoScores, Kind

PAGE = "report.html"
DESCRIPTION = "Prints the twelve COCO metrics of a results file, for boxes or masks."
EPILOG = """\
GT.json is an object with the lists
  images       id; height and width for masks; file_name for pictures
  categories   id, name
  annotations  id, image_id, category_id, area, and bbox [x, y, width, height]
               in pixels or segmentation (polygons, or RLE as a list or a
               string); iscrowd if the object is a crowd

DT.json is a list of
  image_id, category_id, score, and bbox or segmentation

Both files are validated before anything is scored; one line reports the first error. The numbers equal those of
pycocotools; -1 means that there is no such ground truth. docs/coco.md explains them.

examples:
  maskcast evaluate-coco instances_val2017.json results.json
  maskcast evaluate-coco instances_val2017.json results.json --kind segm \\
      --images val2017 --out report
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    _check_folders(args.images, args.out)
    scores = evaluate_files(args.truth, args.results, args.kind)
    if args.out is not None:
        from maskcast.report.detection_files import write_report
        from maskcast.report.detection_page import detection_sections
        from maskcast.report.page import document

        with atomic_output(args.out, "out") as partial:
            partial.mkdir()
            write_report(partial, scores, args.images)
            page = document("COCO evaluation", detection_sections(scores, partial))
            (partial / PAGE).write_text(page, encoding="utf-8")
    truth = scores.truth
    counted = {"detection": scores.detections, "truth": truth.annotations, "image": truth.images}
    print(f"{args.kind}: {', '.join(pluralize(len(items), name) for name, items in counted.items())}")
    print(scores.table())
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("truth", metavar="GT.json", type=Path, help="ground truth")
    parser.add_argument("results", metavar="DT.json", type=Path, help="detections with scores")
    parser.add_argument("--kind", choices=("bbox", "segm"), default="bbox", help="boxes (default) or masks")
    parser.add_argument(
        "--images", metavar="FOLDER", type=Path, help="folder of the images, to draw the best and worst"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="new folder for tables, curves, pictures and metrics.json"
    )


def evaluate_files(truth: Path, results: Path, kind: "Kind") -> "CocoScores":
    """Reads, checks and scores two files.

    Raises:
        MaskcastError: a file is invalid; names its first fault.
    """
    from maskcast.evaluation.coco.evaluator import evaluate
    from maskcast.evaluation.coco.files import read_detections, read_truth

    with gc_paused():
        ground_truth = read_truth(truth, kind)
        return evaluate(ground_truth, read_detections(results, ground_truth, kind), kind)


def _check_folders(images: Path | None, out: Path | None) -> None:
    if images is not None and out is None:
        raise MaskcastError("--images: requires --out; give a new folder for the pictures")
    if images is not None and not images.is_dir():
        raise MaskcastError(f"{images}: no such folder (--images); give the one that contains GT.json's file_name")
    if out is not None:
        check_not_exists(out, "out")
