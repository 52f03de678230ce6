"""Reads COCO files of others: a ground truth and a results file, each fault in one line."""

import json
from pathlib import Path
from typing import Any

from maskcast.coco.evaluator import Kind, Record, Truth


def read_truth(path: Path, kind: Kind) -> Truth:
    """Reads a ground truth (`images`, `categories`, `annotations`).

    Raises:
        MaskcastError: naming the first fault, where it is and what to do.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    return Truth(content["images"], content["categories"], content["annotations"])


def read_detections(path: Path, truth: Truth, kind: Kind) -> list[Record]:
    """Reads a results file: a list of `image_id`, `category_id`, `score` and `bbox` or `segmentation`.

    Raises:
        MaskcastError: naming the first fault, where it is and what to do.
    """
    content: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return list(content)
