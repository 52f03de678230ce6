"""Reads external COCO files, a ground truth and a results file; errors have one line.

Everything is checked before scoring. A column of a file is one array (`records.py`), so that checks take a
fraction of the time for parsing the JSON.
"""

from pathlib import Path

import numpy as np

from maskcast.data.coco.masks import compressed_masks
from maskcast.data.coco.records import Records, read_lists
from maskcast.errors import MaskcastError
from maskcast.evaluation.coco.evaluator import Kind, Record, Truth
from maskcast.progress import say
from maskcast.reading import pluralize, read_json, short_repr

SHAPE_KEY = {"bbox": "bbox", "segm": "segmentation"}
OTHER_KIND = {"bbox": "segm", "segm": "bbox"}
LVIS_KEYS = {"neg_category_ids", "not_exhaustive_category_ids"}
AREA_REMEDY = "add it: the pixels of the mask, or width x height of the box"


def read_truth(path: Path, kind: Kind) -> Truth:
    """Reads a ground truth (`images`, `categories`, `annotations`).

    Raises:
        MaskcastError: the file is invalid; the message names the first fault, its place and a remedy.
    """
    images, categories, annotations = read_lists(path)
    annotations.numbers("area", AREA_REMEDY, minimum=0)
    if any(not LVIS_KEYS.isdisjoint(image) for image in images.records):
        say(
            f"warning: {path}: is of LVIS, where images are not annotated with all categories, but is scored by "
            "COCO's rules: detections of other categories count as false; LVIS's own evaluation leaves them out"
        )
    return Truth(
        images.records,
        categories.records,
        _checked_shapes(annotations, kind, images, annotations.integers("image_id")),
    )


def read_detections(path: Path, truth: Truth, kind: Kind) -> list[Record]:
    """Reads a results file: a list of `image_id`, `category_id`, `score` and `bbox` or `segmentation`.

    Raises:
        MaskcastError: the file is invalid; the message names the first fault, its place and a remedy.
    """
    content = read_json(path)
    if not isinstance(content, list):
        given = (
            "an object; give the ground truth as the first file"
            if isinstance(content, dict)
            else short_repr(content)
        )
        raise MaskcastError(f"{path}: results must be a list of detections, not {given}")
    if not content:
        raise MaskcastError(f"{path}: contains no detections; run the detector, or lower its score threshold")
    detections, images = Records(str(path), content), Records("images of the ground truth", truth.images)
    image_ids = np.array([image["id"] for image in truth.images])
    image_ids_N = detections.integers("image_id")
    if not np.isin(image_ids_N, image_ids).any():
        raise MaskcastError(
            f"{path}: results of another image set: none of its image ids, e.g. {image_ids_N[0]}, is in the "
            f"ground truth ({len(image_ids)} ids, {image_ids.min()} to {image_ids.max()}); use files of one set"
        )
    detections.known("image_id", image_ids, "an image of the ground truth")
    detections.known(
        "category_id", np.array([record["id"] for record in truth.categories]), "a category of the ground truth"
    )
    if lacking := len(np.setdiff1d(image_ids, image_ids_N)):
        images_text = pluralize(len(image_ids), "image")
        say(f"{lacking} of {images_text} have no detection: all of their objects count as missed")
    detections.numbers("score", "add it: the confidence of the detector")
    return _checked_shapes(detections, kind, images, image_ids_N)


def _checked_shapes(records: Records, kind: Kind, images: Records, image_ids_N: np.ndarray) -> list[Record]:
    """Returns the records with checked boxes, or with masks converted to compressed RLE."""
    key, other = SHAPE_KEY[kind], SHAPE_KEY[OTHER_KIND[kind]]
    for n, record in enumerate(records.records):
        if not record.get(key):
            remedy = f"it has {other!r}: use --kind {OTHER_KIND[kind]}" if record.get(other) else "add it"
            records.fail(n, f"missing key {key!r}; {remedy}")
    if kind == "bbox":
        boxes_N4 = records.boxes()
        negative = (boxes_N4[:, 2:] < 0).any(axis=1)
        records.refuse(negative, "bbox", "must have a width and height of at least 0")
        if all(_has_size(image) for image in images.records):
            records.refuse_corners(boxes_N4, _sizes(images, image_ids_N))
        return list(records.records)
    masks = compressed_masks(records, _sizes(images, image_ids_N))
    return [{**record, "segmentation": mask} for record, mask in zip(records.records, masks, strict=True)]


def _has_size(image: Record) -> bool:
    """Whether an image states its size, which boxes do not need."""
    return all(type(image.get(key)) is int and image[key] > 0 for key in ("height", "width"))


def _sizes(images: Records, image_ids_N: np.ndarray) -> np.ndarray:
    """Returns height and width of the image of each record, (N, 2) int64."""
    sizes_I2 = np.stack([images.integers("height"), images.integers("width")], axis=1)
    images.refuse(sizes_I2[:, 0] < 1, "height", "must be at least 1 pixel")
    images.refuse(sizes_I2[:, 1] < 1, "width", "must be at least 1 pixel")
    return sizes_I2[images.rows_of(image_ids_N)]
