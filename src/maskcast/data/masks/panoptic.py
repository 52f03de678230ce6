"""Panoptic mask values that hold a class and an object: class * divisor + object."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskcast.data.masks.stored import WHITE_16, MaskImage
from maskcast.labels import IGNORE, LabelError

COLOUR_DIVISOR = 1 << 16  # divisor for colours 0xRRGGBB: red is the class, green and blue are the object
OBJECTS_PER_CLASS = 1000  # the divisor of MOTS and Cityscapes
MOTS_VOID = 10_000  # means no label in MOTS
MAX_CLASS_BY_DIVISOR = {100: 128, OBJECTS_PER_CLASS: IGNORE}  # upper limit of classes; 100 is of VIPSeg
MAX_OBJECTS = 4096  # per class, in colours


@dataclass(frozen=True)
class PanopticEncoding:
    """How a pixel value splits into class and object.

    Attributes:
        divisor: a value is class * divisor + object; in colours, object 0 means none.
        classes: a value below this or below the divisor is a class without object, such as a crowd or stuff.
        ignore: value that means no label; it is not split.
    """

    divisor: int
    classes: int
    ignore: int | None = None

    def __call__(self, path: Path, mask: MaskImage) -> tuple[np.ndarray, np.ndarray]:
        """Returns the class of each pixel, and its value as object id; 0 where there is no object.

        Raises:
            LabelError: the divisor is for colours and the mask is grey, or the other way round.
        """
        values_HW, coloured = mask.values_HW, self.divisor == COLOUR_DIVISOR
        if coloured == (mask.grey() is not None) and values_HW.any():
            kind = "colours, but this mask is grey" if coloured else "numbers, but this mask contains colours"
            raise LabelError(
                f"{path}: source.label_divisor: {self.divisor} is for {kind}; use {COLOUR_DIVISOR} for "
                "colours, and e.g. 1000 or 100 for numbers"
            )
        if coloured:
            return values_HW // COLOUR_DIVISOR, np.where(values_HW % COLOUR_DIVISOR, values_HW, 0)
        whole_HW = (values_HW < max(self.classes, self.divisor)) | (values_HW == self.ignore)
        return np.where(whole_HW, values_HW, values_HW // self.divisor), np.where(whole_HW, 0, values_HW)


def is_two_byte_format(pixels: Mapping[int, int]) -> bool:
    """Whether values are class * 256 + object for all pixels, as in instance masks of Mapillary Vistas and KITTI.

    This is not a `PanopticEncoding`, because values below 256 are objects of class 0.
    """
    large = [value for value in pixels if value > IGNORE]
    num_stuff = sum(value % 256 == 0 for value in large)
    highest = max((value % 256 for value in large), default=256)
    return num_stuff > 1 and highest < 128 and 2 * pixels.get(0, 0) <= sum(pixels.values())


def guess_encoding(pixels: Mapping[int, int], *, colours: bool) -> PanopticEncoding | None:
    """Returns how the values of a set's masks split into class and object, or None if they do not seem to.

    Args:
        pixels: number of pixels by value.
        colours: whether values are colours, 0xRRGGBB.
    """
    values, total = sorted(pixels), sum(pixels.values())
    large = [value for value in values if value > IGNORE and value not in (MOTS_VOID, WHITE_16)]
    if not colours and MOTS_VOID in values and large and min(filter(None, values)) >= OBJECTS_PER_CLASS:
        return PanopticEncoding(OBJECTS_PER_CLASS, large[-1] // OBJECTS_PER_CLASS + 1, MOTS_VOID)
    if 2 * pixels.get(0, 0) > total:  # panoptic masks label everything; cell numbers have a background
        return None
    if colours:
        stuff = {value // COLOUR_DIVISOR for value in values if value % COLOUR_DIVISOR == 0} - {0, IGNORE}
        classes = {value // COLOUR_DIVISOR for value in values} - {IGNORE}
        few = max(value % COLOUR_DIVISOR for value in values) < MAX_OBJECTS
        dense = max(classes, default=0) <= 2 * len(classes) + 8  # not so for colours that people choose
        return PanopticEncoding(COLOUR_DIVISOR, 0) if len(stuff) > 1 and few and dense else None
    stuff = {value for value in values if 0 < value < IGNORE}
    for divisor, max_class in MAX_CLASS_BY_DIVISOR.items():
        lowest: dict[int, int] = {}
        for value in large:
            lowest.setdefault(value // divisor, value % divisor)
        few = max((value % divisor for value in large), default=divisor) < divisor // 2
        are_counted = few and max(lowest.values()) < divisor // 10  # else the numbers lie anywhere
        if are_counted and len(stuff) > 1 and 0 < min(lowest) <= max(lowest) < max_class:
            return PanopticEncoding(divisor, max(*stuff, *lowest) + 1, WHITE_16 if WHITE_16 in pixels else None)
    return None
