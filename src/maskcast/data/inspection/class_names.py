"""Finds class names in a list beside the data.

Such lists are `label_colors.txt`, `class_dict.csv`, `classes.txt`, CVAT's `labelmap.txt`, or a JSON such as VSPW's
`label_num_dic_final.json`.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from maskcast.data.labelling.formats.cityscapes import TABLE
from maskcast.data.labelling.formats.mots import KITTI
from maskcast.data.masks.panoptic import COLOUR_DIVISOR, MOTS_VOID
from maskcast.data.masks.rules import VOID, has_colours
from maskcast.data.masks.stored import BDD_BITMASK
from maskcast.data.masks.survey import MaskSurvey
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.labels import IGNORE
from maskcast.reading import read_json

CLASS_LIST = re.compile(r".*(class|label|palette|colou?r|categor).*\.(txt|csv|json)", re.IGNORECASE)
VIPSEG = "panoVIPSeg_categories.json"  # its ids are one less than the values in masks, where 0 means no label
BDD = ("background", "pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
CITYSCAPES_NAMES = tuple(name for name, *_ in TABLE)
# in the order of their train ids
CITYSCAPES_TRAIN_NAMES = tuple(name for name, _, _, left_out in TABLE if not left_out)
# by the masks' names
CITYSCAPES_BY_SUFFIX = {
    "_labelIds": CITYSCAPES_NAMES,
    "_instanceIds": CITYSCAPES_NAMES,
    "_labelTrainIds": CITYSCAPES_TRAIN_NAMES,
}
# highest train id; MOTChallenge-STEP has its own classes 0 to 6
STEP_HIGHEST_IDS = range(7, len(CITYSCAPES_TRAIN_NAMES))
_LABELMAP = re.compile(r"^([^:]+):(\d+,\d+,\d+):[^:]*:[^:]*$")
MAX_LIST_BYTES = 65536  # maximum size of a list in bytes
NO_LABEL = re.compile(r"_*(void|ignore|unlabell?ed|unknown|none)_*", re.IGNORECASE)


class ListedClass(NamedTuple):
    """A line of a list: a name, and its colour as 0xRRGGBB and its id, if given."""

    name: str
    colour: int | None
    number: int | None = None


def listed_classes(raw: Path) -> Iterator[tuple[list[ListedClass], str]]:
    """Yields the classes of each list below a folder, and the list's path."""
    for path in list_files(raw):
        parts = path.relative_to(raw).parts
        if len(parts) > 3 or not CLASS_LIST.fullmatch(path.name) or path.stat().st_size > MAX_LIST_BYTES:
            continue
        is_json = path.suffix.lower() == ".json"
        found = (
            _parse_json(path) if is_json else _parse_text(path.read_text(encoding="utf-8-sig", errors="replace"))
        )
        if len(found) > 1:
            yield found, "/".join(parts)


def source_with_list(
    source: dict[str, Any], listed: Sequence[ListedClass], ids: Sequence[int]
) -> dict[str, Any] | None:
    """Returns the keys of a source with the names of a list; None if the list does not fit the masks.

    Args:
        source: with `classes`, and with `values` if masks hold colours, or ids with gaps.
        listed: classes by id, or by colour.
        ids: class ids in the masks.
    """
    if any(one.number is not None for one in listed):
        by_id = [one.name for one in sorted(listed, key=lambda one: one.number or 0)]
        return None if has_colours(source.get("values", {})) else _source_with_ids(source, by_id, ids)
    if "values" in source:
        by_colour = {f"#{one.colour:06x}": one.name for one in listed if one.colour is not None}
        if not set(source["values"]) <= by_colour.keys():
            return None
        names = dict.fromkeys(name for name in by_colour.values() if not NO_LABEL.fullmatch(name))
        values = {colour: name if name in names else VOID for colour, name in by_colour.items()}
        background_first = sorted(names, key=lambda name: name.lower() != "background")
        return {"classes": background_first, "values": values} if len(names) > 1 else None
    names_by_id = [one.name for one in listed]
    has_ids = source.get("encoding") == "index" or "label_divisor" in source
    if not has_ids or len(names_by_id) != len(source["classes"]):
        return None
    if len(set(names_by_id)) < len(names_by_id):
        return None
    void = [number for number, name in enumerate(names_by_id) if NO_LABEL.fullmatch(name)]
    if void == [len(names_by_id) - 1] and "ignore" not in source and len(names_by_id) > 2:
        return {"classes": names_by_id[:-1], "ignore": void[0]}
    return {"classes": names_by_id}


def source_of_known_dataset(
    source: dict[str, Any], mask: Path, survey: MaskSurvey
) -> tuple[dict[str, Any], str] | None:
    """Returns the keys of a source with the class names of a known data set, and the data set's name; else None.

    Args:
        source: with `label_divisor` if masks hold classes and objects.
        mask: one of its masks; Cityscapes' masks are recognised by their names.
        survey: the contents of the masks.
    """
    known = next((names for ending, names in CITYSCAPES_BY_SUFFIX.items() if mask.stem.endswith(ending)), ())
    values, place = survey.values, "Cityscapes"
    if BDD_BITMASK in survey.formats:
        known, place = BDD, "BDD100K"
    elif source.get("ignore") == MOTS_VOID:
        known, place = ("background", *KITTI), "KITTI MOTS"
    elif (
        source.get("label_divisor") == COLOUR_DIVISOR
        and IGNORE in values
        and max({*values} - {IGNORE}) in STEP_HIGHEST_IDS
    ):
        known = CITYSCAPES_TRAIN_NAMES  # KITTI-STEP
    found = _source_with_ids(source, known, [value for value in values if value != MOTS_VOID])
    return None if found is None else (found, f"the table of {place}")


def _source_with_ids(source: dict[str, Any], names: Sequence[str], values: Sequence[int]) -> dict[str, Any] | None:
    """Returns the keys of a source with these names for class ids; None if the masks have other ids."""
    ids = [value for value in values if value != IGNORE]
    if not any(ids) or ids[-1] >= len(names):
        return None
    source.pop("values", None)
    void = {"ignore": IGNORE} if IGNORE in values else {}
    return {"classes": list(names), **({} if "label_divisor" in source else {"encoding": "index"}), **void}


def _parse_text(text: str) -> list[ListedClass]:
    """Parses the lines of a list: `64 128 64 Animal`, `Animal,64,128,64`, `Animal:64,128,64::` or only names."""
    found, names_only = [], []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        line = _LABELMAP.sub(r"\1 \2", line)
        words = [word for word in re.split(r"[,;\t ]+", line.strip()) if word]
        numbers = [int(word) for word in words if word.isdigit()]
        name = " ".join(word for word in words if not word.isdigit())
        if not name:
            continue
        if len(numbers) == 3 and max(numbers) < 256:
            found.append(ListedClass(name, numbers[0] << 16 | numbers[1] << 8 | numbers[2]))
        elif not numbers:
            names_only.append(ListedClass(name, None))
    return found or names_only


def _parse_json(path: Path) -> list[ListedClass]:
    """Returns the classes of a JSON: `{"wall": "1"}` without gaps, or `[{"name": "car", "color": [0, 0, 9]}]`."""
    content: Any = None
    with suppress(MaskcastError):  # not a list of classes
        content = read_json(path)
    if isinstance(content, dict):
        ids = {name: int(number) for name, number in content.items() if str(number).isdecimal()}
        if 0 not in ids.values():
            ids["background"] = 0
        counted = ids.keys() >= content.keys() and sorted(ids.values()) == [*range(len(ids))]
        return [ListedClass(name, None, number) for name, number in ids.items()] if counted else []
    found = []
    for one in content if isinstance(content, list) else ():
        match one:
            case {"name": str(name), "color": [int(red), int(green), int(blue)]}:
                found.append(ListedClass(name, red << 16 | green << 8 | blue))
    if path.name == VIPSEG:
        return [
            ListedClass(one.name, None, number) for number, one in enumerate((ListedClass("void", None), *found))
        ]
    return found
