"""COCO box evaluation of 5,000 images, loading and checking the files included: ours against pycocotools.

    python benchmarks/coco.py [--rounds 3] [--images 5000]

Both start from two JSON files and end with the twelve numbers, which must agree to 1e-9.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from _common import peer, positive_int, print_table, ratio, time_interleaved
from maskcast.commands.evaluate_coco import evaluate_files
from maskcast.errors import one_line_errors
from maskcast.evaluation.coco.evaluator import SUMMARY_LINES
from maskcast.evaluation.coco.files import read_detections, read_truth

CLASSES, HEIGHT, WIDTH = 48, 480, 640
PEER, OURS = "pycocotools", "maskcast, with validation"


def write_files(folder: Path, images: int, seed: int) -> tuple[int, int]:
    """Writes gt.json and dt.json: about 5 truths and 18 detections per image, 1 % crowds; returns the counts."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        sizes = np.exp(rng.uniform(np.log(8), np.log(250), (count, 2)))
        return np.hstack([rng.uniform(size=(count, 2)) * ([WIDTH, HEIGHT] - sizes), sizes])

    image_G = np.repeat(np.arange(1, images + 1), rng.poisson(5, images))
    truth_G4 = boxes(len(image_G)).round(2)
    class_G = rng.integers(1, CLASSES + 1, len(image_G))
    truth = {
        "images": [{"id": n, "height": HEIGHT, "width": WIDTH} for n in range(1, images + 1)],
        "categories": [{"id": k, "name": f"class {k}"} for k in range(1, CLASSES + 1)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": k, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, (i, k, box, crowd) in enumerate(
                zip(
                    image_G.tolist(),
                    class_G.tolist(),
                    truth_G4.tolist(),
                    (rng.uniform(size=len(image_G)) < 0.01).astype(int).tolist(),
                    strict=True,
                ),
                1,
            )
        ],
    }
    # Each truth is detected 2.2 times on average, shifted by 12 % of its size, one time in five with another
    # class.
    source = np.repeat(np.arange(len(image_G)), rng.poisson(2.2, len(image_G)))
    moved = truth_G4[source] + rng.normal(0, 0.12, (len(source), 4)) * np.tile(truth_G4[source, 2:], 2)
    wrong = rng.uniform(size=len(source)) < 0.2
    named = np.where(wrong, rng.integers(1, CLASSES + 1, len(source)), class_G[source])
    alarms = 7 * images
    found_D4 = np.vstack([moved, boxes(alarms)]).round(2)
    found_D4[:, 2:] = np.maximum(found_D4[:, 2:], 1)
    image_D = np.r_[image_G[source], rng.integers(1, images + 1, alarms)]
    class_D = np.r_[named, rng.integers(1, CLASSES + 1, alarms)]
    score_D = np.r_[rng.beta(3, 2, len(source)), rng.beta(2, 4, alarms)].round(3)
    order = rng.permutation(len(image_D))
    columns = (column[order].tolist() for column in (image_D, class_D, found_D4, score_D))
    keys = ("image_id", "category_id", "bbox", "score")
    results = [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]
    (folder / "gt.json").write_text(json.dumps(truth))
    (folder / "dt.json").write_text(json.dumps(results))
    return len(image_G), len(results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=3)
    parser.add_argument("--images", type=positive_int, default=5000)
    args = parser.parse_args()
    coco, cocoeval = peer("pycocotools.coco"), peer("pycocotools.cocoeval")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truths, detections = write_files(folder, args.images, seed=0)
        truth, results = folder / "gt.json", folder / "dt.json"

        def ours() -> list[float]:
            return list(evaluate_files(truth, results, "bbox").summary.values())

        def reading() -> None:
            read_detections(results, read_truth(truth, "bbox"), "bbox")

        def theirs() -> list[float]:
            with contextlib.redirect_stdout(io.StringIO()):
                loaded = coco.COCO(str(truth))
                evaluation = cocoeval.COCOeval(loaded, loaded.loadRes(str(results)), "bbox")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            stats: list[float] = evaluation.stats.tolist()
            return stats

        variants = {OURS: ours, "  of it: load and validate": reading}
        if coco:
            variants = {PEER: theirs} | variants
        seconds = time_interleaved(variants, args.rounds)
        difference = max(abs(a - b) for a, b in zip(ours(), theirs(), strict=True)) if coco else None
    base = next(iter(seconds.values()))
    rows = [(name, f"{statistics.median(s):.2f}", f"{ratio(base, s):.1f}x") for name, s in seconds.items()]
    title = f"COCO boxes: {args.images} images, {truths} truths, {detections} detections, {CLASSES} categories"
    print_table(title, ("variant", "CPU s", "speed-up"), rows)
    if difference is None:
        return
    equal = difference <= 1e-9
    verdict = "equal" if equal else "NOT EQUAL"
    print(f"largest difference of the {len(SUMMARY_LINES)} numbers: {difference:.1e} ({verdict})")
    if not equal or ratio(seconds[PEER], seconds[OURS]) < 5:
        raise SystemExit("target missed: equal numbers, at most a fifth of the time of pycocotools")


if __name__ == "__main__":
    with one_line_errors():
        main()
