"""Pascal VOC: an XML file per image, and text files that name the images of each split."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from maskcast.data.detection_sources.base import (
    DetectionSource,
    Listing,
    NamedBoxes,
    RelativePath,
    named_listing,
    number,
)
from maskcast.data.frame_names import by_stem
from maskcast.data.images import image_files
from maskcast.errors import MaskcastError

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocSource(DetectionSource):
    """Pascal VOC; an image is the file with the name of its XML, coordinates are taken as they stand."""

    layout: Literal["voc"] = "voc"
    annotations: RelativePath = "Annotations"
    """Folder of the XML files."""
    images: RelativePath = "JPEGImages"
    """Folder of the images."""
    train: RelativePath = "ImageSets/Main/train.txt"
    """Text file with the name of a training image on each line."""
    val: RelativePath | None = "ImageSets/Main/val.txt"
    """The same of the validation images; null holds out `val_share` of the others."""
    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Class names in the order of their ids; null takes those that occur, sorted."""

    def list(self, raw: Path) -> Listing:
        """Lists the images of both text files (see `DetectionSource.list`)."""
        if not (raw / self.images).is_dir():
            raise MaskcastError(f"{raw / self.images}: no such folder; mend source.images or the data set's root")
        images = by_stem(image_files(raw / self.images))
        files = {"train": self.train} | ({"val": self.val} if self.val else {})
        splits: dict[str, Sequence[NamedBoxes]] = {}
        for split, file in files.items():
            names = _names(raw / file)
            if missing := [name for name in names if name not in images]:
                raise MaskcastError(
                    f"{raw / self.images}: no image {missing[0]!r}, which {raw / file} names ({len(missing)} of "
                    f"{len(names)} such); add it"
                )
            splits[split] = [_read(raw / self.annotations / f"{name}.xml", images[name]) for name in names]
        return named_listing(splits, self.classes)


def _names(path: Path) -> list[str]:
    """Returns the first word of each line; VOC's files per class have a second one."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MaskcastError(f"{path}: cannot be read as text ({error}); mend source.train or source.val") from None
    names = [line.split()[0] for line in lines if line.strip()]
    if not names:
        raise MaskcastError(f"{path}: names no image; give one name a line")
    return names


class _NoDoctype(ET.TreeBuilder):
    """Refuses document types, which can define entities that refer to other files or grow without bounds."""

    def doctype(self, *_: object) -> None:
        raise ET.ParseError("it has a DOCTYPE")


def _read(path: Path, image: Path) -> NamedBoxes:
    try:
        root = ET.parse(path, ET.XMLParser(target=_NoDoctype())).getroot()  # noqa: S314
    except OSError:
        raise MaskcastError(f"{path}: cannot be read; each image needs its XML file") from None
    except (ET.ParseError, LookupError, ValueError) as error:  # the last two: encodings
        raise MaskcastError(f"{path}: not the XML of an image ({error}); mend it") from None
    names, boxes = [], []
    for n, entry in enumerate(root.findall("object"), 1):
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise MaskcastError(f"{path}: object {n} has no name; add it")
        names.append(name)
        boxes.append([number(entry.findtext(f"bndbox/{key}"), f"{path}: {key} of object {n}") for key in CORNERS])
    return NamedBoxes(image, path, names, boxes)
