"""COCO JSON: per split one file of images, categories and annotations, and a folder of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskcast.data.coco.records import Records, category_names, read_lists
from maskcast.data.detection.sources.base import DetectionListing, DetectionSource, LabelledImage
from maskcast.errors import MaskcastError
from maskcast.params import Params, RelativePath
from maskcast.reading import short_repr


class CocoFiles(Params):
    """The files of one split."""

    annotations: RelativePath
    """JSON of images, categories and annotations."""
    images: RelativePath
    """Folder that each `file_name` is relative to."""


class CocoSource(DetectionSource):
    """COCO JSON; category ids are any integers, crowds are kept as such, segmentations are not read."""

    layout: Literal["coco"] = "coco"
    train: CocoFiles
    """Files of the training images."""
    val: CocoFiles | None = None
    """Files of the validation images; null holds out `val_share` of the training images."""

    def listing(self, raw: Path) -> DetectionListing:
        """Lists the images of both files (see `DetectionSource.listing`)."""
        files = {"train": self.train} | ({"val": self.val} if self.val else {})
        categories, splits = {}, {}
        for split, split_files in files.items():
            categories[split], splits[split] = _read(raw / split_files.annotations, raw / split_files.images)
        if self.val is not None and categories["train"] != categories["val"]:
            raise MaskcastError(
                f"{raw / self.val.annotations}: its categories differ from those of "
                f"{raw / self.train.annotations}; use the same ids and names in both"
            )
        ids = sorted(categories["train"])
        return DetectionListing(tuple(categories["train"][k] for k in ids), tuple(ids), splits)


def _read(path: Path, folder: Path) -> tuple[dict[int, str], list[LabelledImage]]:
    """Returns the category names by id, and the images."""
    images, categories, annotations = read_lists(path)
    boxes_N4 = annotations.boxes()
    sizes = [_size(images, n) for n in range(len(images.records))]
    names_by_id = category_names(categories)
    ids = {name: k for k, name in names_by_id.items()}  # categories with the same name become one class
    classes = {k: name for name, k in ids.items()}
    labels_N = np.searchsorted(
        np.sort(list(classes)), [ids[names_by_id[k]] for k in annotations.integers("category_id").tolist()]
    )
    crowd_N = np.array([_is_crowd(one) for one in annotations.records], bool)
    ids_I = images.integers("id")
    image_N = annotations.integers("image_id")
    sizes_I2 = np.array([size or (0, 0) for size in sizes]).reshape(-1, 2)
    annotations.refuse_corners(boxes_N4, sizes_I2[images.rows_of(image_N)])
    boxes_N4[:, 2:] += boxes_N4[:, :2]
    # Sorted by image once, so that the boxes of each image are a slice.
    order_N = image_N.argsort(kind="stable")
    starts_I = np.searchsorted(image_N[order_N], ids_I)
    stops_I = np.searchsorted(image_N[order_N], ids_I, side="right")
    images.column("file_name")  # checks that each has one
    names = [images.find_image(n, folder) for n in range(len(images.records))]
    listed = []
    for i, image_id in enumerate(ids_I.tolist()):
        rows_n = order_N[starts_I[i] : stops_I[i]]
        listed.append(
            LabelledImage(
                image_id,
                folder / names[i],
                names[i],
                boxes_N4[rows_n],
                labels_N[rows_n],
                crowd_N[rows_n],
                sizes[i],
            )
        )
    return classes, listed


def _is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether a box is around many objects; in files of CVAT, which marks all painted masks so, it is not."""
    attributes = annotation.get("attributes")
    from_cvat = isinstance(attributes, dict) and "occluded" in attributes
    return bool(annotation.get("iscrowd", 0)) and not from_cvat


def _size(images: Records, n: int) -> tuple[int, int] | None:
    """Returns height and width as stated in an image's record, or None."""
    height, width = (images.records[n].get(key) for key in ("height", "width"))
    if height is None or width is None:
        return None
    for key, value in (("height", height), ("width", width)):
        if type(value) is not int:
            images.fail(n, f"{key} must be an integer, not {short_repr(value)}; fix it")
    return height, width
