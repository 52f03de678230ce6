"""Finds class names in a list beside the data.

Such lists are `label_colors.txt`, `class_dict.csv`, `classes.txt`, CVAT's `labelmap.txt`, or a JSON such as VSPW's
`label_num_dic_final.json`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from maskcast.data.labelling.formats.cityscapes import TABLE
from maskcast.data.labelling.formats.mots import KITTI
from maskcast.data.masks.panoptic import COLOUR_DIVISOR, MOTS_VOID
from maskcast.data.masks.rules import VOID, has_colours
from maskcast.data.masks.stored import BDD_BITMASK, WHITE_16
from maskcast.data.masks.survey import MaskSurvey
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.labels import IGNORE
from maskcast.reading import is_small_integer, read_file, read_json

NAMED_AS_LIST = re.compile(r"class|label|palette|colou?r|categor", re.IGNORECASE)
# Others have classes in a part: Supervisely, nnU-Net, Mapillary Vistas.
CLASS_LIST = re.compile(
    rf".*({NAMED_AS_LIST.pattern}).*\.(txt|csv|json)|(meta|dataset|config.*)\.json", re.IGNORECASE
)
JSON_PARTS = ("labels", "classes", "categories")
_HEX = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)
_ID_OR_HEX = re.compile(rf"\d+|{_HEX.pattern}", re.IGNORECASE)
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
        if len(parts) > 3 or not CLASS_LIST.fullmatch(path.name):
            continue
        if not path.is_file() or path.stat().st_size > MAX_LIST_BYTES:  # is_file: not a pipe
            continue
        is_json = path.suffix.lower() == ".json"
        found = _parse_json(path) if is_json else _parse_text(read_file(path).decode("utf-8-sig", "replace"))
        if len(found) > 1:
            # In params, `ignore` means no label.
            names = {one.name for one in found}
            void = next(name for k in count() if (name := f"{'_' * k}void") not in names)
            yield [one._replace(name=void) if one.name == VOID else one for one in found], "/".join(parts)


def source_with_list(
    source: Mapping[str, Any], listed: Sequence[ListedClass], ids: Sequence[int]
) -> dict[str, Any] | None:
    """Returns keys that replace those of a source and its `values`; None if the list does not fit the masks.

    Args:
        source: with `classes`, and with `values` if masks hold colours, or ids with gaps.
        listed: classes by id, or by colour.
        ids: class ids in the masks.
    """
    if not has_colours(source.get("values", {})) and (by_id := _by_id(listed)):
        return _source_with_ids(source, by_id, ids)
    if "values" in source:
        by_colour = {f"#{one.colour:06x}": one.name for one in listed if one.colour is not None}
        if "#000000" in source["values"]:  # lists of objects leave it out
            by_colour.setdefault("#000000", "background")
        if not set(source["values"]) <= by_colour.keys():
            return None
        names = dict.fromkeys(name for name in by_colour.values() if not NO_LABEL.fullmatch(name))
        values = {colour: name if name in names else VOID for colour, name in by_colour.items()}
        background_first = sorted(names, key=lambda name: name.lower() != "background")
        return {"classes": background_first, "values": values} if len(names) > 1 else None
    if any(one.number is not None for one in listed):
        return None  # the order says nothing of the ids
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
    source: Mapping[str, Any], mask: Path, survey: MaskSurvey
) -> tuple[dict[str, Any], str] | None:
    """Returns keys (see ``source_with_list``) with the class names of a known data set, and its name; else None.

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


def _source_with_ids(
    source: Mapping[str, Any], names: Sequence[str], values: Sequence[int]
) -> dict[str, Any] | None:
    """Returns keys with these names for class ids; None if the masks have other ids."""
    void_value = WHITE_16 if WHITE_16 in values else IGNORE
    ids = [value for value in values if value != void_value]
    if not any(ids) or ids[-1] >= len(names):
        return None
    void = {"ignore": void_value} if void_value in values else {}
    return {"classes": list(names), **({} if "label_divisor" in source else {"encoding": "index"}), **void}


def _parse_text(text: str) -> list[ListedClass]:
    """Parses the lines of a list, which have names, and perhaps ids or colours.

    `64 128 64 Animal`, `Animal,64,128,64`, `Animal:64,128,64::`, `Animal,#408040`, `1: Animal`,
    `1,Animal,64,128,64`.
    """
    found, names_only = [], []
    for line in text.splitlines():
        if line.startswith("#") and not _HEX.match(line):  # a comment
            continue
        line = _LABELMAP.sub(r"\1 \2", line)
        words = [word for word in re.split(r"[,;\t ]+|(?<=\d):", line.strip()) if word]
        numbers = [int(word) for word in words if is_small_integer(word)]
        colours = [int(word[1:], 16) for word in words if _HEX.fullmatch(word)]
        name = " ".join(word for word in words if not is_small_integer(word) and not _HEX.fullmatch(word))
        if not name:
            continue
        if len(numbers) > 2 and max(numbers[-3:]) < 256:
            colours.append(_rgb(numbers[-3:]))
            del numbers[-3:]
        if len(numbers) < 2 and len(colours) < 2 and (numbers or colours):
            found.append(ListedClass(name, next(iter(colours), None), next(iter(numbers), None)))
        elif not numbers:
            names_only.append(ListedClass(name, None))
    return found or names_only


def _parse_json(path: Path) -> list[ListedClass]:
    """Returns the classes of a JSON: `{"car": 1}`, `{"#000009": "car"}`, `[{"name": "car", "color": [0, 0, 9]}]`.

    They may be a part of it, called labels, classes or categories.
    """
    content: Any = None
    with suppress(MaskcastError):  # not a list of classes
        content = read_json(path)
    parts = [content[key] for key in JSON_PARTS if isinstance(content, dict) and key in content]
    if parts or not NAMED_AS_LIST.search(path.stem):
        content = parts[0] if parts else None
    if isinstance(content, dict):
        if all(isinstance(name, str) for name in content.values()) and all(map(_ID_OR_HEX.fullmatch, content)):
            content = {name: key for key, name in content.items()}
        found = [_listed(name, value) for name, value in content.items()]
    elif isinstance(content, list):
        found = [
            _listed(one.get("name", one.get("title")), one.get("color"), one.get("id"))
            if isinstance(one, dict)
            else _listed(one)
            for one in content
        ]
    else:
        found = []
    classes = [one for one in found if one is not None]
    if len(classes) < len(found):
        return []
    if path.name == VIPSEG:
        return [
            ListedClass("void", None, 0),
            *(one._replace(colour=None, number=k) for k, one in enumerate(classes, 1)),
        ]
    return classes


def _listed(name: object, *values: object) -> ListedClass | None:
    """Returns a class with its colour and id, of any order; None if a value is neither."""
    colour, number = None, None
    for value in values:
        match value:
            case None:
                continue
            case bool():
                return None
            case int() | str() if is_small_integer(str(value)):
                number = int(value)
            case str() if _HEX.fullmatch(value):
                colour = int(value[1:], 16)
            case [int(), int(), int()] if {*value} <= {*range(256)}:
                colour = _rgb(value)
            case _:
                return None
    return ListedClass(name, colour, number) if isinstance(name, str) else None


def _rgb(values: Sequence[int]) -> int:
    """Returns a colour as 0xRRGGBB."""
    return values[0] << 16 | values[1] << 8 | values[2]


def _by_id(listed: Sequence[ListedClass]) -> list[str]:
    """Returns names by id, with `background` for a lacking 0; empty if ids are lacking, or have gaps.

    Greys count as ids, because masks with grey colours are read as ids.
    """
    numbers = [one.number for one in listed]
    if None in numbers:
        numbers = [None if one.colour is None or one.colour % 0x010101 else one.colour & 255 for one in listed]
    named = {number: one.name for number, one in zip(numbers, listed, strict=True) if number is not None}
    if 0 not in named:
        named[0] = "background"
    names = [named[number] for number in sorted(named)]
    whole = len(named) >= len(listed) and max(named) == len(named) - 1 and len({*names}) == len(names)
    return names if None not in numbers and whole else []
