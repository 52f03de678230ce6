"""A detection set: images with boxes in the common format that `prepare_detection` writes.

    dataset.json      class names, counts, checksums, what was left out and why
    train.json        COCO format; categories 0..K-1, boxes x, y, width, height in pixels
    val.json          the same for the split val
    images/train/...  the images of a split; images/val/... likewise
    unlabeled/...     images without boxes, if the source has any

Legend: N boxes, K classes, H height, W width, C = 3 channels (RGB).
"""

import hashlib
import json
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, model_validator

from maskcast.data.images import image_files, read_image
from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.labels import MirrorSwaps, mirror_swaps_from_json
from maskcast.reading import parsing, read_file

FORMAT = "maskcast-detection/1"
REMEDY = "run prepare_detection again"


class _Split(BaseModel):
    """The entry of a split in ``dataset.json``."""

    sha256: str


class _Metadata(BaseModel):
    """The keys of ``dataset.json`` that are read."""

    format: Literal["maskcast-detection/1"]
    classes: tuple[str, ...]
    original_ids: tuple[int, ...]
    mirror_swaps: Annotated[MirrorSwaps, BeforeValidator(mirror_swaps_from_json)] = ()
    splits: dict[Literal["train", "val"], _Split]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if len(self.classes) != len(self.original_ids):
            raise ValueError(f"got {len(self.classes)} classes and {len(self.original_ids)} original_ids")
        return self


class DetectionSet:
    """A detection set on disk; images are decoded on access.

    Args:
        root: the folder with `dataset.json`.

    Attributes:
        classes: names of the classes 0..K-1; there is no background class.
        original_ids: for each class its id in the source; 0..K-1 if the source has only names.
        mirror_swaps: pairs of classes that a horizontal flip swaps.
        digest: hash of the contents: images, boxes and classes.

    Raises:
        MaskcastError: if the folder is not a detection set.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        path = root / "dataset.json"
        if not path.is_file():
            raise MaskcastError(f"{path}: not found; give the folder that prepare_detection wrote")
        raw = read_file(path)
        with parsing(path, f"a {FORMAT} description", REMEDY):
            self.about: dict[str, Any] = json.loads(raw)
            metadata = _Metadata.model_validate(self.about)
        self.mirror_swaps = metadata.mirror_swaps
        self.classes: tuple[str, ...] = tuple(self.about["classes"])
        self.original_ids: tuple[int, ...] = tuple(self.about["original_ids"])
        self.digest = hashlib.sha256(raw).hexdigest()[:32]

    @property
    def num_classes(self) -> int:
        """K. There is no background class; a detector that reserves id 0 for it adds one."""
        return len(self.classes)

    def split(self, name: str) -> "DetectionSplit":
        """Returns the labelled images of `train` or `val`.

        Raises:
            MaskcastError: if the split does not exist, or its file is missing, damaged or differs from its
                checksum.
        """
        if name not in self.about["splits"]:
            available = ", ".join(self.about["splits"])
            raise MaskcastError(
                f"{self.root}: split {name!r} not found (found: {available}); prepare the set with that split"
            )
        return DetectionSplit(self.root, name, self.about["splits"][name]["sha256"])

    @cached_property
    def unlabeled(self) -> tuple[Path, ...]:
        """The images without boxes, in numeric order; empty if the source has none."""
        folder = self.root / "unlabeled"
        return tuple(image_files(folder)) if folder.is_dir() else ()


class DetectionSplit:
    """The labelled images of one split, by index 0..len-1.

    Attributes:
        truth: the split's COCO file, which `maskcast.evaluation.coco.files.read_truth` reads.
        ids: image ids, by index.
        paths: image files, by index.
    """

    def __init__(self, root: Path, name: str, sha256: str) -> None:
        self.truth = root / f"{name}.json"
        content = _read_split(self.truth, sha256)
        with parsing(self.truth, "a valid split", REMEDY):
            self._index(content, root / "images" / name)

    def _index(self, content: dict[str, Any], images: Path) -> None:
        self.ids: list[int] = [image["id"] for image in content["images"]]
        self.paths: list[Path] = [images / image["file_name"] for image in content["images"]]
        # One array for all boxes: a list of small arrays takes ten times the memory.
        annotations = [annotation for annotation in content["annotations"] if not annotation["iscrowd"]]
        index_by_id = {image_id: n for n, image_id in enumerate(self.ids)}
        annotations.sort(key=lambda annotation: index_by_id[annotation["image_id"]])
        counts = np.bincount(
            [index_by_id[annotation["image_id"]] for annotation in annotations], minlength=len(self.ids)
        )
        self._spans = list(pairwise(accumulate(counts.tolist(), initial=0)))
        boxes_N4 = np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)
        boxes_N4[:, 2:] += boxes_N4[:, :2]
        self._boxes_N4 = boxes_N4.astype(np.float32)
        self._labels_N = np.array([annotation["category_id"] for annotation in annotations], np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Returns a hash (32 hex digits) of the split's classes, image ids, boxes and images.

        Raises:
            MaskcastError: if an image is missing.
        """
        digest = hashlib.sha256(self.truth.read_bytes())
        for path in self.paths:
            try:
                digest.update(sha256_of(path).encode())
            except OSError as error:
                raise MaskcastError(f"{path}: cannot be read ({error.strerror}); prepare the set again") from None
        return digest.hexdigest()[:32]

    def image(self, n: int) -> np.ndarray:
        """Returns image `n`, (H, W, C) uint8 RGB.

        Raises:
            MaskcastError: if its file is missing or damaged.
        """
        return read_image(self.paths[n])

    def boxes(self, n: int) -> np.ndarray:
        """Returns the boxes of image `n`, (N, 4) float32: x1, y1, x2, y2 in pixels, in the image; no crowds."""
        start, stop = self._spans[n]
        return self._boxes_N4[start:stop]

    def labels(self, n: int) -> np.ndarray:
        """Returns the classes of the boxes of image `n`, (N,) int64 in 0..K-1."""
        start, stop = self._spans[n]
        return self._labels_N[start:stop]


def _read_split(path: Path, sha256: str) -> dict[str, Any]:
    raw = read_file(path) if path.is_file() else b""
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise MaskcastError(f"{path}: not found, or its checksum differs from dataset.json; {REMEDY}")
    with parsing(path, "valid JSON", REMEDY):
        content: dict[str, Any] = json.loads(raw)
    return content
