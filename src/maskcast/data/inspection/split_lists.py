"""Reads the split that a name says, and lists and tables of the members of splits."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import read_file, read_json

SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in ("train", "val", "test")}
MAX_TABLE_BYTES = 1 << 20  # maximum size of a table in bytes
MAX_LISTS = 100  # per folder: more texts named after splits, such as `train_000012.txt`, belong to single images
Texts = Sequence[str]  # of a row: the line of a list, or the cells of a table, of which one may name a sequence


def split_of_name(name: str) -> tuple[str, bool] | None:
    """Returns the split in a name, and whether it is the whole name: `Train`, unlike `train2017`, `ValDataset`."""
    if name.lower() in SPLIT_NAMES:
        return SPLIT_NAMES[name.lower()], True
    words = map(str.lower, re.findall("[A-Z]?[a-z]+|[A-Z]+", name))
    bare = [word.removesuffix("set") for word in words]  # `Testset`
    splits = {SPLIT_NAMES[word] for word in bare if word in SPLIT_NAMES}
    return (splits.pop(), False) if len(splits) == 1 else None


def read_lists(raw: Path) -> Iterator[tuple[Path, dict[Path, list[tuple[str, Texts]]]]]:
    """Yields the place of lists that belong together, with the split and texts of each of their rows.

    Lists are text files of one folder, such as `val.txt` and `test-dev.txt`. Tables, which stand alone, are
    `splits.csv` or `splits.json`.
    """
    paths = [path for path in list_files(raw, ".csv", ".json", ".txt") if path.is_file()]  # not a pipe
    of_text = {path: path.suffix.lower() == ".txt" for path in paths}
    tables = [path for path in paths if not of_text[path] and path.stat().st_size <= MAX_TABLE_BYTES]
    lists = [path for path in paths if of_text[path] and split_of_name(path.stem)]
    lists += [path for path in tables if path.stem.lower() in SPLIT_NAMES and path.suffix.lower() == ".csv"]
    together = defaultdict[Path, list[Path]](list)
    for path in lists:
        together[path.parent].append(path)
    for folder, own in sorted(together.items()):
        if len(own) <= MAX_LISTS:
            own.sort(key=lambda path: _split_of_list(path) != "val")
            yield folder, {path: list(_lines_of(path)) for path in own}
    for path in tables:
        known = path.suffix.lower() == ".csv" or "split" in path.stem.lower()  # JSON files are mostly labels
        if known and path.stem.lower() not in SPLIT_NAMES:
            yield path, {path: list(_rows_of(path))}


def _split_of_list(path: Path) -> str:
    """Returns the split in the name of a list, e.g. `test-dev.txt`; empty if there is none."""
    return (split_of_name(path.stem) or ("",))[0]


def _text_of(path: Path) -> str:
    return read_file(path).decode("utf-8-sig", "replace")


def _lines_of(path: Path) -> Iterator[tuple[str, Texts]]:
    """Yields the split in a list's name with each line of a text, or the cells of each row of a table."""
    lines = [line for line in _text_of(path).splitlines() if line.strip()]
    rows: Iterable[Texts] = ([line] for line in lines)
    if path.suffix.lower() == ".csv":
        rows = _cells(lines)
    for texts in rows:
        yield _split_of_list(path), texts


def _rows_of(path: Path) -> Iterator[tuple[str, Texts]]:
    """Yields split and cells for each row of a table, such as `a,train`, or of `{"train": ["a"]}`."""
    if path.suffix.lower() == ".json":
        content = None
        with suppress(MaskcastError):  # reported where the file is used
            content = read_json(path)
        for key, members in content.items() if isinstance(content, dict) else ():
            if key.lower() in SPLIT_NAMES and isinstance(members, list):
                yield from ((SPLIT_NAMES[key.lower()], [one]) for one in members if isinstance(one, str))
        return
    rows = _cells(_text_of(path).splitlines())
    split_rows = [(SPLIT_NAMES.get("".join(map(_split_word, row)), ""), row) for row in rows]
    if sum(not split for split, _ in split_rows) <= 1:  # the header
        for split, row in split_rows:
            if split:
                yield split, ["" if _split_word(cell) else cell for cell in row]


def _cells(lines: Sequence[str]) -> list[list[str]]:
    """Returns the rows of a table of comma-separated values; none if it is no table.

    Columns without a header, such as the counters that pandas writes, name nothing.
    """
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows += csv.reader(lines)
    unnamed = {column for column, cell in enumerate(rows[0] if rows else ()) if not cell.strip()}
    return [
        ["" if column in unnamed and not _split_word(cell) else cell for column, cell in enumerate(row)]
        for row in rows
    ]


def _split_word(cell: str) -> str:
    """Returns a table cell in lower case if it names a split, else an empty text."""
    word = cell.strip().lower()
    return word if word in SPLIT_NAMES else ""
