"""Reads lists of class names beside the data.

Such lists are `label_colors.txt`, `class_dict.csv`, `classes.txt`, CVAT's `labelmap.txt`, or a JSON such as VSPW's
`label_num_dic_final.json`.
"""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

from maskcast.data.masks.rules import VOID
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import decode_text, is_small_integer, parsing, read_file

NAMED_AS_LIST = re.compile(r"class|label|palette|colou?r|categor|objectinfo", re.IGNORECASE)
# Others have classes in a part: Supervisely, nnU-Net, Mapillary Vistas.
CLASS_LIST = re.compile(
    rf".*({NAMED_AS_LIST.pattern}).*\.(txt|csv|json)|(meta|dataset|config.*)\.json", re.IGNORECASE
)
JSON_PARTS = ("labels", "classes", "categories")
_HEX = re.compile(r"#[0-9a-f]{6}", re.IGNORECASE)
_ID_OR_HEX = re.compile(rf"\d+|{_HEX.pattern}", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(\.\d+)?")
_COLOUR = r"\d{1,3}(?:[,\s]+\d{1,3}){2,3}"  # with or without opacity
_COLOUR_CELL = re.compile(rf"[(\[]?\s*({_COLOUR})\s*[)\]]?")
_COLOUR_WORD = re.compile(rf"(?<!,)(?<!,\s)(?<![^\s:]){_COLOUR}(?![^\s:])")  # `car 255,0,0`
_LABELMAP = re.compile(r"([^:]+):(\d+),(\d+),(\d+):[^:]*:[^:]*")
_HEADER = re.compile(
    r"((id|index|name|class|label|value|pixel|colou?r|rgb|hex|r|g|b|red|green|blue)_?)+", re.IGNORECASE
)
# Titles of the columns that count; a table may have others: ADE20K has `Idx`, `Ratio`, `Train`, `Val`, `Name`.
_NAME_COLUMN = re.compile(r"((class|label)[ _]?)?(name|title)|class|label", re.IGNORECASE)
_ID_COLUMN = re.compile(r"((class|label|pixel)[ _]?)?(id|idx|index|value)", re.IGNORECASE)
_COLOUR_COLUMNS = (("r", "red"), ("g", "green"), ("b", "blue"))
# How many numbers may stand before and after a name: an id, a colour, or both, perhaps with the opacity.
# ITK-SNAP adds two that say what is visible.
_FORMS = {(1, 0), (0, 1), (3, 0), (0, 3), (1, 3), (3, 1), (4, 0), (0, 4), (1, 4), (5, 0), (7, 0)}
DELIMITERS = (";", "\t", ",")
VIPSEG = "panoVIPSeg_categories.json"  # its ids are one less than the values in masks, where 0 means no label
LABELME_IGNORED = "__ignore__"  # first in labelme's lists, with the id -1
MAX_LIST_BYTES = 65536  # maximum size of a list in bytes


class ListedClass(NamedTuple):
    """A line of a list: a name, and its colour as 0xRRGGBB and its id, if given."""

    name: str
    colour: int | None
    number: int | None = None


class ClassList(NamedTuple):
    """The classes of a list, its path below the data, and the encoding of its text."""

    classes: list[ListedClass]
    place: str
    encoding: str


def class_lists(raw: Path) -> Iterator[ClassList]:
    """Yields each list of at least two classes below a folder."""
    for path in list_files(raw):
        parts = path.relative_to(raw).parts
        if len(parts) > 3 or not CLASS_LIST.fullmatch(path.name):
            continue
        if not path.is_file() or path.stat().st_size > MAX_LIST_BYTES:  # is_file: not a pipe
            continue
        text, encoding = decode_text(read_file(path))
        is_json = path.suffix.lower() == ".json"
        found = _parse_json(path, text) if is_json else _parse_text(text)
        if found and found[0] == (LABELME_IGNORED, None, None):
            del found[0]
        if len(found) > 1:
            # In params, `ignore` means no label.
            names = {one.name for one in found}
            void = next(name for k in count() if (name := f"{'_' * k}void") not in names)
            classes = [one._replace(name=void) if one.name == VOID else one for one in found]
            yield ClassList(classes, "/".join(parts), encoding)


def _parse_text(text: str) -> list[ListedClass]:
    """Parses the lines of a list, which have names, and perhaps ids or colours.

    `64 128 64 Animal`, `Animal,64,128,64`, `Animal:64,128,64::`, `Animal,#408040`, `1: Animal`,
    `1,Animal,64,128,64`, `Animal: 64, 128, 64`, `1 Animal 64 128 64 255`.
    """
    # A line that begins with # and no colour is a comment.
    lines = [line for line in map(str.strip, text.splitlines()) if line and (line[0] != "#" or _HEX.match(line))]
    if labelmap := [match for line in lines if (match := _LABELMAP.fullmatch(line))]:
        return [ListedClass(one[1].strip(), _rgb([int(one[k]) for k in (2, 3, 4)])) for one in labelmap]
    for delimiter in DELIMITERS:
        if 2 * sum(delimiter in line for line in lines) > len(lines):
            rows: list[list[str]] = []
            with suppress(csv.Error):  # no table
                rows += csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            table = [_cells(row) for row in rows]
            if 2 * sum(map(_has_values, table)) > len(table):
                found = _parse_columns(rows) or _parse_rows(table, f"{delimiter.strip()} ")
                if found or 2 * sum(_COLOUR_WORD.search(line) is not None for line in lines) <= len(lines):
                    return found
                break
            lines = [line.strip(delimiter) for line in lines]
    lines = [_COLOUR_WORD.sub(lambda match: match[0].replace(",", " "), line) for line in lines]
    rows = [re.sub(r"(?<=\d):", " ", line).split() for line in lines]
    if rows and all(map(_HEADER.fullmatch, rows[0])) and max(map(len, rows[0])) > 1:
        rows = rows[1:]
    rows = [row for row in rows if not all(map(is_small_integer, row))]
    if 2 * sum(_has_values(row, of_words=True) for row in rows) > len(rows):
        return _parse_rows(rows, " ")
    return [ListedClass(" ".join(row), None) for row in rows]


def _cells(row: Sequence[str]) -> list[str]:
    """Returns the cells of a row of a table that are not empty, and the numbers of a colour one by one."""
    cells: list[str] = []
    for cell in filter(None, map(str.strip, row)):
        colour = _COLOUR_CELL.fullmatch(cell)
        cells += re.findall(r"\d+", cell) if colour else [cell]
    return cells


def _has_values(row: Sequence[str], *, of_words: bool = False) -> bool:
    """Whether a row has a name, and numbers or colours; in words these are at its ends."""
    are_values = [bool(_NUMBER.fullmatch(cell) or _HEX.fullmatch(cell)) for cell in row]
    return not all(are_values) and any(are_values[:: max(1, len(row) - 1)] if of_words else are_values)


def _parse_rows(rows: Sequence[Sequence[str]], joint: str) -> list[ListedClass]:
    """Returns the classes of rows of which most have values; none if it is unclear what these mean.

    The others are titles or remarks, unless the values are only ids that do not count up, which may be of names.
    In words, numbers are a part of the name if names are not different without them.

    Args:
        rows: the cells of a table, or words.
        joint: what names of several cells are joined by; a space for words.
    """
    of_words = joint == " "
    valued = [row for row in rows if _has_values(row, of_words=of_words)]
    hexes = [[cell for cell in row if _HEX.fullmatch(cell)] for row in valued]
    cells = [[cell for cell in row if not _HEX.fullmatch(cell)] for row in valued]
    first, last = (min(_count_numbers(row[::step]) for row in cells) for step in (1, -1))
    forms = [(first, last)]
    if of_words:
        forms += [(first, last - last % 3), (0 if first == 1 else first, last - last % 3)]
    names = {form: [joint.join(row[form[0] : len(row) - form[1]]) for row in cells] for form in forms}
    first, last = form = next((form for form in forms if len({*names[form]}) == len(cells)), forms[-1])
    whole_rows = [ListedClass(" ".join(row), None) for row in rows] if of_words else []
    if not any(form) and not any(hexes):
        return whole_rows
    if form not in _FORMS and not any(hexes):
        return []
    found: list[ListedClass] = []
    has_opacity = form == (0, 4) and all(row[-1] == "255" for row in cells)
    for name, row, colours in zip(names[form], cells, hexes, strict=True):
        before, after = row[:first], row[len(row) - last :]
        values = [*after, *before] if first == 3 else [*before, *after]  # the id first
        one = _with_values(name.removesuffix(":").strip('"'), [*values[: 3 if has_opacity else 4], *colours])
        found += [] if one is None else [one]
    counts_up = first == 1 and [one.number for one in found] in ([*range(len(found))], [*range(1, len(found) + 1)])
    has_colours = any(one.colour is not None for one in found)
    return found if len(valued) == len(rows) or counts_up or has_colours else whole_rows or found


def _parse_columns(rows: Sequence[Sequence[str]]) -> list[ListedClass]:
    """Returns the classes of a table whose titles say which column has names, and which have ids or colours."""
    titles = [title.strip() for title in rows[0]]
    names, ids = (
        [k for k, title in enumerate(titles) if form.fullmatch(title)] for form in (_NAME_COLUMN, _ID_COLUMN)
    )
    colours = [k for words in _COLOUR_COLUMNS for k, title in enumerate(titles) if title.lower() in words]
    if len(names) != 1 or len(ids) > 1 or len(colours) not in (0, 3) or not (ids or colours):
        return []
    if any(len(row) != len(titles) for row in rows):
        return []
    found = [_with_values(row[names[0]].strip(), [row[k].strip() for k in ids + colours]) for row in rows[1:]]
    return [one for one in found if one is not None] if all(found) else []


def _count_numbers(cells: Iterable[str]) -> int:
    """Returns the number of cells before the first that is no number."""
    return sum(1 for _ in takewhile(_NUMBER.fullmatch, cells))


def _with_values(name: str, values: Sequence[str]) -> ListedClass | None:
    """Returns a class with an id, a colour or both, in this order; None if these are not its values."""
    colours = [int(value[1:], 16) for value in values if value.startswith("#")]
    numbers = [int(value) for value in values if is_small_integer(value)]
    if len(numbers) + len(colours) < len(values):  # fractions
        return None
    if len(numbers) > 2 and max(numbers[-3:]) < 256:
        colours.append(_rgb(numbers[-3:]))
        del numbers[-3:]
    if not name or len(numbers) > 1 or len(colours) > 1:
        return None
    return ListedClass(name, next(iter(colours), None), next(iter(numbers), None))


def _parse_json(path: Path, text: str) -> list[ListedClass]:
    """Returns the classes of a JSON: `{"car": 1}`, `{"#000009": "car"}`, `[{"name": "car", "color": [0, 0, 9]}]`.

    They may be a part of it, called labels, classes or categories.
    """
    content: Any = None
    with suppress(MaskcastError), parsing(path, "valid JSON", ""):  # not a list of classes
        content = json.loads(text)
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
