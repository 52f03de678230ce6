"""The base of raw layouts of labelled images: a config that lists the images without decoding them.

A module defines one `DetectionSource` subclass, named by its `layout`; `table.py` is the union of all.

Legend: N boxes of an image, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maskcast.data.mirror_swaps import MirrorSwapsParam
from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.reading import short_repr

ROUNDED_ONE = 1.001  # tolerance for rounded shares
MAX_SHARE = 2  # shares above this are errors; boxes may extend beyond their image, but not that far


@dataclass(frozen=True)
class LabelledImage:
    """One image that a source found, with its boxes as given in the source.

    Attributes:
        id: unique within the split.
        path: image file.
        name: path relative to the folder of its split.
        boxes_N4: float64 x1, y1, x2, y2 in pixels; finite, but not clipped and possibly of zero or negative size.
        labels_N: int64 classes 0..K-1.
        crowd_N: bool, whether a box is around many objects, or around one that need not be found.
        size: height and width as stated by the labels, or None.
    """

    id: int
    path: Path
    name: str
    boxes_N4: np.ndarray
    labels_N: np.ndarray
    crowd_N: np.ndarray
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class DetectionListing:
    """What a source found.

    Attributes:
        classes: names of the classes 0..K-1.
        original_ids: for each class its id in the source; 0..K-1 if the source has only names.
        splits: `train` and possibly `val`, in the order of the source.
    """

    classes: tuple[str, ...]
    original_ids: tuple[int, ...]
    splits: Mapping[str, Sequence[LabelledImage]]


class DetectionSource(Params):
    """Base of the params of a raw layout; a subclass adds `layout: Literal["..."]` and implements `listing`."""

    boxes: Literal["pixels", "shares"] = "pixels"
    """Units of the box coordinates: `pixels`, or `shares` of the image's width and height, from 0 to 1."""

    mirror_swaps: MirrorSwapsParam | None = None
    """Pairs of classes that trade places when an image is flipped horizontally, e.g. `[left hand, right hand]` or
    `[[left eye, right eye], [left ear, right ear]]`. Training flips half of the images and swaps the classes of
    these pairs. [] declares that none swap, which also ends the warning about names with a side."""

    def listing(self, raw: Path) -> DetectionListing:
        """Lists the labelled images below a folder.

        Raises:
            MaskcastError: if the folder does not have this layout, or labels are malformed.
        """
        raise TypeError(f"{type(self).__name__} does not implement listing()")


@dataclass(frozen=True)
class NamedBoxes:
    """An image whose boxes have class names.

    Attributes:
        image: image file.
        where: label file.
        names: class name of each box.
        boxes: x1, y1, x2, y2 of each.
        size: height and width of the image, if stated.
        crowd: whether each box need not be found; empty if all must be.
    """

    image: Path
    where: Path
    names: Sequence[str]
    boxes: Sequence[Sequence[float]]
    size: tuple[int, int] | None = None
    crowd: Sequence[bool] = ()


def named_listing(splits: Mapping[str, Sequence[NamedBoxes]], classes: Sequence[str] | None) -> DetectionListing:
    """Returns a listing of images whose boxes have class names.

    Args:
        splits: images by split; the images of each split are numbered from 1.
        classes: names in the order of their ids; None uses the names that occur, sorted.

    Raises:
        MaskcastError: on a name that is not in `classes`, or if no name occurs.
    """
    if classes is None:
        classes = sorted({name for images in splits.values() for entry in images for name in entry.names})
        if not classes:
            raise MaskcastError(
                f"no image of {', '.join(splits)} has an object; list the classes in source.classes"
            )
    ids = {name: k for k, name in enumerate(classes)}
    listings: dict[str, list[LabelledImage]] = {}
    for split, images in splits.items():
        listings[split] = []
        for n, entry in enumerate(images, 1):
            if unknown := set(entry.names) - set(ids):
                raise MaskcastError(
                    f"{entry.where}: unknown class {min(unknown)!r}; "
                    f"add it to source.classes ({', '.join(classes)})"
                )
            labels_N = np.array([ids[name] for name in entry.names], np.int64)
            boxes_N4 = np.array(entry.boxes, np.float64).reshape(-1, 4)
            crowd_N = np.array(entry.crowd or [False] * len(labels_N), bool)
            listings[split].append(
                LabelledImage(n, entry.image, entry.image.name, boxes_N4, labels_N, crowd_N, entry.size)
            )
    return DetectionListing(tuple(classes), tuple(range(len(classes))), listings)


def check_units(splits: Mapping[str, Sequence[LabelledImage]], boxes: str) -> None:
    """Refuses boxes that contradict the units in `source.boxes`.

    Raises:
        MaskcastError: if all pixel boxes are within the first pixel of their images, or shares are far above 1.
    """
    for split, images in splits.items():
        maxima = [float(image.boxes_N4.max()) for image in images if image.boxes_N4.size]
        if boxes == "pixels" and maxima and max(maxima) <= ROUNDED_ONE:
            raise MaskcastError(
                f"source.boxes: all boxes of {split} are between 0 and 1, like shares of the image's width and "
                "height, not pixels; set source.boxes to shares"
            )
        if boxes == "shares" and maxima and max(maxima) > MAX_SHARE:
            image = next(image for image in images if image.boxes_N4.size and image.boxes_N4.max() > MAX_SHARE)
            raise MaskcastError(
                f"source.boxes: {image.name} of {split} has a box up to {image.boxes_N4.max():g}, but shares are "
                "at most 1; set source.boxes to pixels"
            )


def finite_number(value: Any, where: str) -> float:
    """Returns a coordinate as a finite number.

    Raises:
        MaskcastError: if it is not a finite number; the message starts with `where`.
    """
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        result = math.nan
    if not math.isfinite(result):
        raise MaskcastError(f"{where} must be a finite number, not {short_repr(value)}; fix it")
    return result
