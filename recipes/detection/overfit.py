"""Checks that the detector learns: trained on a few images, it must find what is in them, every class of it.

    python recipes/detection/overfit.py FOLDER --annotations annotations/train.json --images train

FOLDER holds images and COCO annotations. The params of the recipe apply, but nothing is augmented. Says
the twelve COCO numbers on the images trained on, AP50 of each class, and the time it took.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import yaml

from maskcast.errors import one_line_errors
from maskcast.runner.run import run_stage

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Runs three stages and prints their scores."""
    parser = argparse.ArgumentParser(description="overfit a detector to a few images")
    parser.add_argument("folder", type=Path, help="folder of images and annotations")
    parser.add_argument("--annotations", required=True, help="COCO file in it")
    parser.add_argument("--images", required=True, help="folder of the images in it")
    parser.add_argument("--limit", type=int, default=60, help="images to learn (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE / "results/overfit", help="default: %(default)s")
    args = parser.parse_args()
    params: dict[str, Any] = yaml.safe_load((HERE / "params.yaml").read_text(encoding="utf-8"))
    files = {"annotations": args.annotations, "images": args.images}
    params["prepare_detection"] |= {
        "source": {"layout": "coco", "train": files, "val": files},
        "limit": args.limit,  # the draw depends only on the seed, so both splits get the same images
    }
    params["train_detector"] |= {"augment": {"hflip": 0}}

    def stage(name: str, **ports: Path) -> dict[str, float]:
        return run_stage(name, params[name], name=name, where=f"params.yaml: {name}", **ports)

    out: Path = args.out
    start = time.process_time()
    stage("prepare_detection", raw=args.folder, dataset=out / "dataset")
    learned = stage(
        "train_detector", dataset=out / "dataset", detector=out / "detector", metrics=out / "train_detector.json"
    )
    found = {"dataset": out / "dataset", "detector": out / "detector"}
    stage("evaluate_detector", **found, metrics=out / "evaluate_detector.json", report=out / "report")
    print((out / "report/per_category.md").read_text(encoding="utf-8"))
    minutes = (time.process_time() - start) / 60
    print(json.dumps(learned | {"cpu_minutes": round(minutes, 1)}, indent=1))


if __name__ == "__main__":
    with one_line_errors():
        main()
