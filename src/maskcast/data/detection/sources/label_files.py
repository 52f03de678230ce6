"""A YAML file per image: `images/<n>.JPEG` and `labels/<n>.yml` with the lists `labels` and `bboxes`."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from maskcast.data.detection.sources.base import (
    DetectionListing,
    DetectionSource,
    NamedBoxes,
    finite_number,
    named_listing,
)
from maskcast.data.frame_names import by_key
from maskcast.data.images import image_files
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.params import RelativePath
from maskcast.reading import pluralize, read_yaml, short_repr

YAML_SUFFIXES = (".yml", ".yaml")
# libyaml is about ten times as fast, but not every build of PyYAML has it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class LabelFilesSource(DetectionSource):
    """A YAML file per image with `labels` (names) and `bboxes` ([xmin, ymin, xmax, ymax] each)."""

    layout: Literal["label_files"] = "label_files"
    train: RelativePath = "training"
    """Folder with `images` and `labels` of the training images."""
    val: RelativePath | None = "validation"
    """The same for the validation images; null holds out `val_share` of the training images."""
    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Class names in the order of their ids; null uses those that occur, sorted."""

    def listing(self, raw: Path) -> DetectionListing:
        """Lists the images of both folders (see `DetectionSource.listing`)."""
        folders = {"train": self.train} | ({"val": self.val} if self.val else {})
        return named_listing({split: _images(raw / folder) for split, folder in folders.items()}, self.classes)


def _images(folder: Path) -> list[NamedBoxes]:
    for part in ("images", "labels"):
        if not (folder / part).is_dir():
            raise MaskcastError(
                f"{folder / part}: folder not found; fix source.train or source.val, or fetch_dataset.uri, "
                "the folder that contains them"
            )
    images = by_key(image_files(folder / "images"))
    labels = by_key(
        path
        for path in sorted((folder / "labels").iterdir())
        if path.suffix.lower() in YAML_SUFFIXES and not is_junk(path.name)
    )
    if not images:
        raise MaskcastError(f"{folder / 'images'}: contains no images; fix source.train or source.val")
    if unpaired := sorted(set(images) ^ set(labels)):
        first = images.get(unpaired[0])
        missing_folder, file = (
            ("labels", f"{first.stem}.yml") if first is not None else ("images", labels[unpaired[0]].stem)
        )
        raise MaskcastError(
            f"{folder}: {pluralize(len(unpaired), 'image or label file')} without partner: "
            f"{missing_folder}/{file} is missing; add it (with empty lists if the image has no objects)"
        )
    return [_read(labels[key], image) for key, image in images.items()]


def _read(path: Path, image: Path) -> NamedBoxes:
    content = read_yaml(path, "file of labels", "fix it", LOADER)
    names, boxes = (_list(content, key, path) for key in ("labels", "bboxes"))
    if len(names) != len(boxes):
        counts = f"{pluralize(len(names), 'label')} and {pluralize(len(boxes), 'bbox')}"
        raise MaskcastError(f"{path}: has {counts}; both lists must have the same length")
    for n, name in enumerate(names, 1):
        if not isinstance(name, str | int | float) or isinstance(name, bool) or not str(name).strip():
            raise MaskcastError(
                f"{path}: label {n} must be a class name, not {short_repr(name)}; fix it, or put it in quotes"
            )
    for n, box in enumerate(boxes, 1):
        if not isinstance(box, list) or len(box) != 4:
            raise MaskcastError(f"{path}: box {n} must be [xmin, ymin, xmax, ymax], not {short_repr(box)}; fix it")
    numbers = [[finite_number(value, f"{path}: box {n}") for value in box] for n, box in enumerate(boxes, 1)]
    return NamedBoxes(image, path, [str(name) for name in names], numbers)


def _list(content: Any, key: str, path: Path) -> list[Any]:
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, list):
        raise MaskcastError(f"{path}: missing list {key!r}; add labels and bboxes, empty if there are no objects")
    return value
