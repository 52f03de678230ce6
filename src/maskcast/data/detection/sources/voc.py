"""Pascal VOC: one XML file per image, and text files that list the images of each split."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from maskcast.data.detection.sources.base import (
    DetectionListing,
    DetectionSource,
    NamedBoxes,
    finite_number,
    named_listing,
)
from maskcast.data.frame_names import NameKey, by_key, name_key
from maskcast.data.images import IMAGE_SUFFIXES, image_files
from maskcast.data.safe_xml import read_xml
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.params import RelativePath
from maskcast.reading import read_text, short_repr
from maskcast.spelling import did_you_mean

CORNERS = ("xmin", "ymin", "xmax", "ymax")


class VocSource(DetectionSource):
    """Pascal VOC; an image is the file with the name of its XML and of the size that it states, if any.

    Objects that are marked `difficult` are crowds, as VOC's own evaluation leaves them out.
    """

    layout: Literal["voc"] = "voc"
    annotations: RelativePath = "Annotations"
    """Folder of the XML files."""
    images: RelativePath = "JPEGImages"
    """Folder of the images."""
    train: RelativePath = "ImageSets/Main/train.txt"
    """Text file with the name of one training image per line."""
    val: RelativePath | None = "ImageSets/Main/val.txt"
    """The same for the validation images; null holds out `val_share` of the training images."""
    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Class names in the order of their ids; null uses those that occur, sorted."""

    def listing(self, raw: Path) -> DetectionListing:
        """Lists the images of both text files (see `DetectionSource.listing`)."""
        if not (raw / self.images).is_dir():
            raise MaskcastError(
                f"{raw / self.images}: folder not found; fix source.images, or fetch_dataset.uri, the folder "
                "that contains it"
            )
        files = image_files(raw / self.images)
        folder = raw / self.annotations
        xml = (
            [path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".xml"] if folder.is_dir() else []
        )
        lists = {"train": self.train} | ({"val": self.val} if self.val else {})
        there = {name_key(path.stem) for path in files}
        listed = {split: _listed_images(raw / file, there) for split, file in lists.items()}
        wanted = {name_key(name) for names in listed.values() for name in names}
        images, labels = (  # files that no list names may have one name in two spellings
            by_key(path for path in paths if name_key(path.stem) in wanted and not is_junk(path.name))
            for paths in (files, xml)
        )
        splits: dict[str, Sequence[NamedBoxes]] = {}
        for split, file in lists.items():
            names = listed[split]
            if missing := [name for name in names if name_key(name) not in images]:
                known = [path.stem for path in files]
                raise MaskcastError(
                    f"{raw / self.images}: image {missing[0]!r} not found; it is listed in {raw / file} "
                    f"({len(missing)} of {len(names)} missing); add it, or fix the name"
                    f"{did_you_mean(missing[0], known)}"
                )
            splits[split] = [
                _read(labels.get(key, folder / f"{name}.xml"), images[key])
                for name, key in zip(names, map(name_key, names), strict=True)
            ]
        return named_listing(splits, self.classes)


def _listed_images(path: Path, images: Collection[NameKey]) -> list[str]:
    """Returns the image names in a list.

    Raises:
        MaskcastError: if it is empty, or has a name in two spellings.
    """
    names = [_image_name(line, images) for line in _read_names(path)]
    spellings: dict[NameKey, str] = {}
    for name in names:
        if (first := spellings.setdefault(name_key(name), name)) != name:
            raise MaskcastError(f"{path}: {first!r} and {name!r} are names of one image; list it once")
    return names


def _read_names(path: Path) -> list[str]:
    remedy = "write one image name per line, or fix source.train or source.val"
    lines = read_text(path, "text", remedy).splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise MaskcastError(f"{path}: lists no images; write one name per line")
    return names


def _image_name(line: str, images: Collection[NameKey]) -> str:
    """Returns the image name in a line, which may contain spaces; VOC's files per class append -1, 0 or 1."""
    without_flag = re.sub(r"\s+(-1|0|1)$", "", line)
    has_suffix = Path(line).suffix.lower() in IMAGE_SUFFIXES
    return next(
        (name for name in (line, without_flag, Path(line).stem) if name_key(name) in images),
        Path(without_flag).stem if has_suffix else without_flag,
    )


def _read(path: Path, image: Path) -> NamedBoxes:
    root = read_xml(path, "an image", "each image needs its XML file")
    names, boxes, difficult = [], [], []
    for n, element in enumerate(root.findall("object"), 1):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise MaskcastError(f"{path}: object {n} has no name; add it")
        names.append(name)
        mark = (element.findtext("difficult") or "").strip()
        if mark.lower() not in ("", "0", "1", "unspecified"):  # make-sense.ai writes the last for each box
            raise MaskcastError(f"{path}: difficult of object {n} must be 0 or 1, not {short_repr(mark)}; fix it")
        difficult.append(mark == "1")
        boxes.append(
            [finite_number(element.findtext(f"bndbox/{key}"), f"{path}: {key} of object {n}") for key in CORNERS]
        )
    return NamedBoxes(image, path, names, boxes, _size(path, root), difficult)


def _size(path: Path, root: ET.Element) -> tuple[int, int] | None:
    """Returns height and width as stated in an XML, or None; some tools write zeros for unknown sizes."""
    texts = [(root.findtext(f"size/{key}") or "0").strip() for key in ("height", "width")]
    height, width = (
        finite_number(text, f"{path}: {key} of size") for text, key in zip(texts, ("height", "width"), strict=True)
    )
    return (round(height), round(width)) if height > 0 and width > 0 else None
