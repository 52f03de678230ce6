"""The rule that maps pixel values of mask images to classes: one rule for a whole set.

A rule is chosen from a survey. Each mask is checked again when it is read, so that an unexpected value never
silently becomes background.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from maskcast.data.masks.panoptic import PanopticEncoding
from maskcast.data.masks.stored import WHITE_16, ReadMode, read_mask
from maskcast.data.masks.survey import JPEG_TOLERANCE, format_values
from maskcast.labels import IGNORE, LabelError
from maskcast.reading import pluralize

VOID = "ignore"  # for no label, instead of a class in source.values
LOSSY_MESSAGE = "JPEG changes the values of a mask"
BINARY_REMEDY = "set source.encoding: binary and name two classes"


@dataclass(frozen=True)
class MaskRule:
    """Maps pixel values to classes.

    Attributes:
        kind: `index`: the value is the class; `nonzero`: all values except 0 are class 1; `threshold`: values from
            128 are class 1; `table`: see ``table``.
        num_classes: K.
        ignore: pixel value that means no label.
        allowed: for `nonzero`, the values that the survey found; None allows all.
        table: class ids by value, `IGNORE` for no label.
        read_mode: how mask files are read.
        panoptic: how class and object are separated first; None if values hold no objects.
        palette: colour by index, which all masks with palettes must share.
        description: the rule in words, and what it was chosen from.
    """

    kind: Literal["index", "nonzero", "threshold", "table"]
    num_classes: int
    ignore: int | None = None
    allowed: frozenset[int] | None = None
    table: Mapping[int, int] | None = None
    read_mode: ReadMode = "stored"
    panoptic: PanopticEncoding | None = None
    palette: Mapping[int, int] = field(default_factory=dict)
    description: str = ""

    def read(self, path: Path) -> np.ndarray:
        """Reads a mask image as class ids (H, W) uint8, `IGNORE` for no label (see ``read_objects``)."""
        return self.read_objects(path)[0]

    def read_objects(self, path: Path) -> tuple[np.ndarray, np.ndarray]:
        """Reads a mask image as class ids (H, W) uint8, `IGNORE` for no label, and as object ids (its own values).

        If values hold classes as well, object ids are 0 for pixels without object.

        Raises:
            LabelError: on a value that the rule does not know; gives the number of its pixels.
            MaskcastError: if the file cannot be read.
        """
        mask = read_mask(path, self.read_mode)
        values_HW = mask.values_HW if self.read_mode == "colours" else mask.grey()
        if values_HW is None:
            raise LabelError(
                f"{path}: contains colours, but other masks of the set do not; export all masks in one format"
            )
        if mask.lossy and self.kind != "threshold":
            raise LabelError(f"{path}: {LOSSY_MESSAGE}; export it as PNG")
        for index, colour in mask.palette.items():
            if (usual := self.palette.get(index, colour)) != colour:
                raise LabelError(
                    palette_conflict_message(
                        path, index, colour, f"{format_values([usual], colours=True)} in others"
                    )
                )
        objects_HW = values_HW
        if self.panoptic is not None:
            values_HW, objects_HW = self.panoptic(path, mask)
        if self.table is not None:
            return self._looked_up(path, values_HW, self.table), objects_HW
        void_HW = values_HW == self.ignore if self.ignore is not None else np.zeros(values_HW.shape, bool)
        if self.kind == "index":
            self._check(path, values_HW, ~void_HW & (values_HW >= self.num_classes))
            classes_HW = values_HW.clip(0, IGNORE).astype(np.uint8)
        elif self.kind == "threshold":
            most = int(values_HW.max(initial=0))
            if 0 < most <= JPEG_TOLERANCE and not mask.lossy:
                raise LabelError(
                    f"{path}: no value is above {most}, and in this set 128 and more is foreground: all of it "
                    "would be background; export all masks in one format"
                )
            classes_HW = (values_HW >= 128).astype(np.uint8)
        else:
            if self.allowed is not None:
                self._check(path, values_HW, ~void_HW & ~np.isin(values_HW, list(self.allowed)))
            classes_HW = (values_HW != 0).astype(np.uint8)
        return np.where(void_HW, np.uint8(IGNORE), classes_HW), objects_HW

    def _looked_up(self, path: Path, values_HW: np.ndarray, table: Mapping[int, int]) -> np.ndarray:
        keys, ids = np.array(sorted(table)), np.array([table[key] for key in sorted(table)], np.uint8)
        places_HW = np.searchsorted(keys, values_HW).clip(0, len(keys) - 1)
        self._check(path, values_HW, keys[places_HW] != values_HW)
        return ids[places_HW]

    def _check(self, path: Path, values_HW: np.ndarray, wrong_HW: np.ndarray) -> None:
        if not wrong_HW.any():
            return
        values, counts = np.unique(values_HW[wrong_HW], return_counts=True)
        value, count = int(values[-1]), int(counts[-1])
        value_text = format_values([value], colours=self.read_mode == "colours" and self.panoptic is None)
        what = "value" if self.panoptic is None else "class"
        message = f"{path}: the {what} {value_text} ({pluralize(count, 'pixel')})"
        if self.kind == "nonzero":
            raise LabelError(
                f"{message} is not among those of the set ({format_values(sorted(self.allowed or ()))}); if it is "
                "foreground, too, set source.encoding: binary, else give the class of each value in source.values"
            )
        if self.table is not None:
            raise LabelError(f"{message} is not in source.values; add it there (`ignore` for no label)")
        # Other values of the set are class ids, else another rule would have been chosen.
        hint = class_id_remedy(set(values.tolist()), is_only=False, num_classes=self.num_classes)
        raise LabelError(f"{message} is not a class id in 0..{self.num_classes - 1}; {hint}")


def value_table(values: Mapping[str, str], classes: Sequence[str]) -> dict[int, int]:
    """Returns class ids by pixel value, `IGNORE` for `ignore`.

    Args:
        values: class names by pixel value: all numbers, or all colours like `#8000ff`.
        classes: class names by id.

    Raises:
        ValueError: on a key that is neither number nor colour, a mix of both, or an unknown class.
    """
    ids = {name: k for k, name in enumerate(classes)} | {VOID: IGNORE}
    table = {}
    for key, name in values.items():
        if not re.fullmatch(r"#[0-9a-fA-F]{6}" if has_colours(values) else r"\d+", key):
            raise ValueError(f"values: {key!r}: keys must all be numbers, or all be colours such as '#8000ff'")
        if name not in ids:
            raise ValueError(f"values: {name!r} is not a class; allowed: {', '.join(classes)} and {VOID!r}")
        table[int(key.removeprefix("#"), 16 if key.startswith("#") else 10)] = ids[name]
    return table


def has_colours(values: Mapping[str, str]) -> bool:
    """Whether the keys of `source.values` are colours."""
    return any(key.startswith("#") for key in values)


def palette_conflict_message(path: Path, index: int, colour: int, other: str) -> str:
    """Returns the message for a palette index whose colour differs in ``other`` masks."""
    return (
        f"{path}: palette index {index} is {format_values([colour], colours=True)} here and {other}, so palette "
        "indices may not be class ids; if they are, set source.encoding: index, else give the class of each "
        "colour in source.values"
    )


def class_id_remedy(invalid: set[int], *, is_only: bool, num_classes: int) -> str:
    """Returns what to set if values are not class ids; ``is_only``: there are no others except 0."""
    one = max(invalid)
    if len(invalid) == 1 and is_only:
        return f"if it is the only foreground, {BINARY_REMEDY}; else give the class of each value in source.values"
    if len(invalid) == 1 and one in (IGNORE, WHITE_16, num_classes):
        return f"if it means no label, set source.ignore: {one}; else name its class in source.classes"
    return "name all classes in source.classes, or give the class of each value in source.values"
