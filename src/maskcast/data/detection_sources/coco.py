"""COCO JSON: one file of images, categories and annotations per split, and the folder of its images."""

from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from maskcast.data.coco_records import Records, read_lists
from maskcast.data.detection_sources.base import DetectionSource, LabelledImage, Listing, RelativePath
from maskcast.errors import MaskcastError
from maskcast.params import Params


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
    """Files of the validation images; null holds out `val_share` of the others."""

    def list(self, raw: Path) -> Listing:
        """Lists the images of both files (see `DetectionSource.list`)."""
        files = {"train": self.train} | ({"val": self.val} if self.val else {})
        categories, splits = {}, {}
        for split, one in files.items():
            categories[split], splits[split] = _read(raw / one.annotations, raw / one.images)
        if self.val is not None and categories["train"] != categories["val"]:
            raise MaskcastError(
                f"{raw / self.val.annotations}: its categories are not those of {raw / self.train.annotations}; "
                "give both the same ids and names"
            )
        ids = sorted(categories["train"])
        return Listing(tuple(categories["train"][k] for k in ids), tuple(ids), splits)


def _read(path: Path, folder: Path) -> tuple[dict[int, str], list[LabelledImage]]:
    """Returns names of the categories by id, and the images."""
    images, categories, annotations = read_lists(path)
    boxes_N4 = annotations.boxes("add it")
    boxes_N4[:, 2:] += boxes_N4[:, :2]
    ids_K = np.sort(categories.integers("id"))
    labels_N = np.searchsorted(ids_K, annotations.integers("category_id"))
    crowd_N = np.array([bool(one.get("iscrowd", 0)) for one in annotations.records], bool)
    # Sorted by image once, so that each image takes a slice.
    ids_I = images.integers("id")
    image_N = annotations.integers("image_id")
    order_N = image_N.argsort(kind="stable")
    starts_I = np.searchsorted(image_N[order_N], ids_I)
    stops_I = np.searchsorted(image_N[order_N], ids_I, side="right")
    names = _file_names(images)
    heights, widths = images.integers("height").tolist(), images.integers("width").tolist()
    listed = []
    for i, image_id in enumerate(ids_I.tolist()):
        own = order_N[starts_I[i] : stops_I[i]]
        size = heights[i], widths[i]
        listed.append(
            LabelledImage(image_id, folder / names[i], names[i], boxes_N4[own], labels_N[own], crowd_N[own], size)
        )
    return {one["id"]: str(one["name"]) for one in categories.records}, listed


def _file_names(images: Records) -> list[str]:
    names = images.column("file_name", "add it")
    for n, name in enumerate(names):
        path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath("/")
        if path.is_absolute() or ".." in path.parts or not path.name:
            images.fail(n, f"file_name must be a relative path, not {name!r}; mend it")
    return names
