"""Reads COCO files of others: a ground truth and a results file, each fault in one line.

Everything is checked before anything is scored: a column of a file is one array (`records.py`), so that checking
costs a fraction of parsing the JSON.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.coco.evaluator import Kind, Record, Truth
from maskcast.coco.records import Records
from maskcast.coco.segmentations import packed_masks
from maskcast.errors import MaskcastError

SHAPE = {"bbox": "bbox", "segm": "segmentation"}
OTHER = {"bbox": "segm", "segm": "bbox"}
AREA_REMEDY = "add it: the pixels of the mask, or width x height of the box"


def read_truth(path: Path, kind: Kind) -> Truth:
    """Reads a ground truth (`images`, `categories`, `annotations`).

    Raises:
        MaskcastError: naming the first fault, where it is and what to do.
    """
    content = _read_json(path)
    if not isinstance(content, dict):
        raise MaskcastError(
            f"{path}: a ground truth is an object of images, categories and annotations, not a {_named(content)}; "
            "the ground truth comes first, the results second"
        )
    images, categories, annotations = (
        _records(path, content, key) for key in ("images", "categories", "annotations")
    )
    image_ids, category_ids = images.unique("id"), categories.unique("id")
    categories.column("name", "add it")
    annotations.unique("id")
    in_image = annotations.known("image_id", image_ids, f"image of {path}")
    annotations.known("category_id", category_ids, f"category of {path}")
    annotations.numbers("area", AREA_REMEDY, least=0)
    crowds = np.array([one.get("iscrowd", 0) in (0, 1) for one in annotations.records], bool)
    annotations.refuse(~crowds, "iscrowd", "must be 0 or 1")
    shaped = _shaped(annotations, kind, _sizes(images, in_image) if kind == "segm" else None)
    return Truth(images.records, categories.records, shaped)


def read_detections(path: Path, truth: Truth, kind: Kind) -> list[Record]:
    """Reads a results file: a list of `image_id`, `category_id`, `score` and `bbox` or `segmentation`.

    Raises:
        MaskcastError: naming the first fault, where it is and what to do.
    """
    content = _read_json(path)
    if not isinstance(content, list):
        raise MaskcastError(
            f"{path}: results are a list of detections, not a {_named(content)}; "
            "the ground truth comes first, the results second"
        )
    if not content:
        raise MaskcastError(f"{path}: holds no detections; run the detector, or lower its score threshold")
    found, images = Records(str(path), content), Records("images of the ground truth", truth.images)
    image_ids = np.array([image["id"] for image in truth.images])
    in_image = found.integers("image_id")
    if not np.isin(in_image, image_ids).any():
        raise MaskcastError(
            f"{path}: results of another image set: none of its image ids, e.g. {in_image[0]}, is in the ground "
            f"truth, which has {len(image_ids)}, {image_ids.min()} to {image_ids.max()}; give two files of one set"
        )
    found.known("image_id", image_ids, "image of the ground truth")
    found.known("category_id", np.array([one["id"] for one in truth.categories]), "category of the ground truth")
    found.numbers("score", "add it: how sure the detector is")
    return _shaped(found, kind, _sizes(images, in_image) if kind == "segm" else None)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise MaskcastError(f"{path}: no such file; give the path of a COCO JSON file") from None
    except OSError as error:
        raise MaskcastError(f"{path}: cannot be read ({error.strerror}); give the path of a JSON file") from None
    except (ValueError, RecursionError) as error:
        raise MaskcastError(f"{path}: not valid JSON ({error}); write it again") from None


def _records(path: Path, content: dict[str, Any], key: str) -> Records:
    if not isinstance(content.get(key), list):
        have = ", ".join(content) or "nothing"
        raise MaskcastError(
            f"{path}: lacks the list {key!r} (it has {have}); a ground truth has images, categories, annotations"
        )
    if not content[key] and key != "annotations":
        raise MaskcastError(f"{path}: {key} is empty; give a ground truth that has {key}")
    return Records(f"{path}: {key}", content[key])


def _shaped(records: Records, kind: Kind, sizes_N2: np.ndarray | None) -> list[Record]:
    """Returns the records with checked boxes, or with masks that are all compressed RLE."""
    key, other = SHAPE[kind], SHAPE[OTHER[kind]]
    for n, one in enumerate(records.records):
        if not one.get(key):
            remedy = f"it has {other!r}: use --kind {OTHER[kind]}" if one.get(other) else "add it"
            records.fail(n, f"lacks {key!r}; {remedy}")
    if sizes_N2 is None:
        records.boxes("add it")
        return list(records.records)
    masks = packed_masks(records, sizes_N2)
    return [{**one, "segmentation": mask} for one, mask in zip(records.records, masks, strict=True)]


def _sizes(images: Records, image_ids_N: np.ndarray) -> np.ndarray:
    """Returns height and width of the image of each record, (N, 2) int64."""
    sizes_I2 = np.stack([images.integers("height"), images.integers("width")], axis=1)
    images.refuse(sizes_I2[:, 0] < 1, "height", "must be at least 1 pixel")
    images.refuse(sizes_I2[:, 1] < 1, "width", "must be at least 1 pixel")
    ids_I = images.integers("id")
    order_I = ids_I.argsort()
    return sizes_I2[order_I[np.searchsorted(ids_I, image_ids_N, sorter=order_I)]]


def _named(content: Any) -> str:
    if isinstance(content, dict | list):
        return "object" if isinstance(content, dict) else "list"
    return type(content).__name__
