"""Reads external COCO files, a ground truth and a results file; errors have one line.

Everything is checked before scoring. A column of a file is one array (`records.py`), so that checks take a
fraction of the time for parsing the JSON.
"""

from pathlib import Path

import numpy as np

from maskcast.data.coco.masks import packed_masks
from maskcast.data.coco.records import Records, read_lists
from maskcast.errors import MaskcastError
from maskcast.evaluation.coco.evaluator import Kind, Record, Truth
from maskcast.reading import read_json, short_repr

SHAPE = {"bbox": "bbox", "segm": "segmentation"}
OTHER = {"bbox": "segm", "segm": "bbox"}
AREA_REMEDY = "add it: the pixels of the mask, or width x height of the box"


def read_truth(path: Path, kind: Kind) -> Truth:
    """Reads a ground truth (`images`, `categories`, `annotations`).

    Raises:
        MaskcastError: the file is invalid; the message names the first fault, its place and a remedy.
    """
    images, categories, annotations = read_lists(path)
    annotations.numbers("area", AREA_REMEDY, least=0)
    return Truth(images.records, categories.records, _shaped(annotations, kind, images))


def read_detections(path: Path, truth: Truth, kind: Kind) -> list[Record]:
    """Reads a results file: a list of `image_id`, `category_id`, `score` and `bbox` or `segmentation`.

    Raises:
        MaskcastError: the file is invalid; the message names the first fault, its place and a remedy.
    """
    content = read_json(path)
    if not isinstance(content, list):
        given = (
            "an object; ground truths are objects, and come first"
            if isinstance(content, dict)
            else short_repr(content)
        )
        raise MaskcastError(f"{path}: results are a list of detections, not {given}")
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
    return _shaped(found, kind, images)


def _shaped(records: Records, kind: Kind, images: Records) -> list[Record]:
    """Returns the records with checked boxes, or with masks converted to compressed RLE."""
    key, other = SHAPE[kind], SHAPE[OTHER[kind]]
    for n, one in enumerate(records.records):
        if not one.get(key):
            remedy = f"it has {other!r}: use --kind {OTHER[kind]}" if one.get(other) else "add it"
            records.fail(n, f"lacks {key!r}; {remedy}")
    if kind == "bbox":
        small = (records.boxes("add it")[:, 2:] < 0).any(axis=1)
        records.refuse(small, "bbox", "must have a width and height of at least 0")
        return list(records.records)
    masks = packed_masks(records, _sizes(images, records.integers("image_id")))
    return [{**one, "segmentation": mask} for one, mask in zip(records.records, masks, strict=True)]


def _sizes(images: Records, image_ids_N: np.ndarray) -> np.ndarray:
    """Returns height and width of the image of each record, (N, 2) int64."""
    sizes_I2 = np.stack([images.integers("height"), images.integers("width")], axis=1)
    images.refuse(sizes_I2[:, 0] < 1, "height", "must be at least 1 pixel")
    images.refuse(sizes_I2[:, 1] < 1, "width", "must be at least 1 pixel")
    ids_I = images.integers("id")
    order_I = ids_I.argsort()
    return sizes_I2[order_I[np.searchsorted(ids_I, image_ids_N, sorter=order_I)]]
