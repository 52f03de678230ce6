"""Reads the split that a name says, and lists and tables of the members of splits."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import decode_text, read_file, read_json, read_yaml

SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in ("train", "val", "test")}
HELD_OUT_NAMES = {"dev": "val", "development": "val", "eval": "test", "evaluation": "test", "holdout": "test"}
WHOLE_NAMES = SPLIT_NAMES | HELD_OUT_NAMES  # in names of several words `SPLIT_NAMES` come first: `test-dev`
TABLES = (".csv", ".tsv", ".json", ".yaml", ".yml")
LISTS = (".txt", ".lst")
SPLIT_COLUMNS = {"fold", "folds", "split", "splits", "subset", "partition"}
MAX_TABLE_BYTES = 1 << 20  # maximum size of a table in bytes
MAX_LISTS = 100  # per folder: more texts named after splits, such as `train_000012.txt`, belong to single images
Texts = Sequence[str]  # of a row: the line of a list, or the cells of a table, of which one may name a sequence


def split_of_name(name: str) -> tuple[str, bool] | None:
    """Returns the split in a name, and whether it is the whole name: `Train`, unlike `train2017`, `ValDataset`."""
    if whole := split_word(name):
        return WHOLE_NAMES[whole], True
    words = map(str.lower, re.findall("[A-Z]?[a-z]+|[A-Z]+", name))
    bare = [word.removesuffix("set") for word in words]  # `Testset`
    for names in (SPLIT_NAMES, HELD_OUT_NAMES):
        if splits := {names[word] for word in bare if word in names}:
            return (splits.pop(), False) if len(splits) == 1 else None
    return None


def read_lists(raw: Path) -> Iterator[tuple[Path, dict[Path, list[tuple[str, Texts]]]]]:
    """Yields the place of lists that belong together, with the split and texts of each of their rows.

    Lists are files of one folder whose names say a split, such as `val.txt`, `test-dev.txt` and `val.csv`. Tables,
    which stand alone, are `splits.csv`, `splits.json` or `splits.yaml`. The split is empty in rows of a table of
    splits or folds that have none.
    """
    paths = [path for path in list_files(raw, *TABLES, *LISTS) if path.is_file()]  # not a pipe
    lists = [path for path in paths if _is_list(path)]
    together = defaultdict[Path, list[Path]](list)
    for path in lists:
        together[path.parent].append(path)
    for folder, own in sorted(together.items()):
        if len(own) <= MAX_LISTS:
            own.sort(key=lambda path: _split_of_list(path) != "val")
            yield folder, {path: list(_lines_of(path)) for path in own}
    known = {*lists}
    for path in paths:
        is_table = _has_cells(path) or is_named_as_splits(path)  # JSON files are mostly labels
        if is_table and path not in known and path.stat().st_size <= MAX_TABLE_BYTES:
            yield path, {path: list(_rows_of(path))}


def _is_list(path: Path) -> bool:
    """Whether a name says the split of all that a file lists."""
    if path.suffix.lower() in LISTS:
        return split_of_name(path.stem) is not None
    if path.stat().st_size > MAX_TABLE_BYTES or not _split_of_list(path):
        return False
    if _has_cells(path):
        return bool(split_word(path.stem))
    return is_named_as_splits(path) and bool(_texts_of(_content_of(path)))


def is_named_as_splits(path: Path) -> bool:
    """Whether a name says that a file tells splits or folds."""
    return re.search("split|fold", path.stem, re.IGNORECASE) is not None


def _has_cells(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def _split_of_list(path: Path) -> str:
    """Returns the split in the name of a list, e.g. `test-dev.txt`; empty if there is none."""
    return (split_of_name(path.stem) or ("",))[0]


def _text_of(path: Path) -> str:
    return decode_text(read_file(path))[0]


def _lines_of(path: Path) -> Iterator[tuple[str, Texts]]:
    """Yields the split in a list's name with each line of a text, or the cells of each row of a table."""
    if path.suffix.lower() in LISTS:
        rows: Iterable[Texts] = ([line] for line in _text_of(path).splitlines() if line.strip())
    else:
        rows = _cells(path) if _has_cells(path) else ([name] for name in _texts_of(_content_of(path)))
    for texts in rows:
        yield _split_of_list(path), texts


def _rows_of(path: Path) -> Iterator[tuple[str, Texts]]:
    """Yields split and cells for each row of a table: `a,train`, `{"train": ["a"]}`, `{"a": "train"}`.

    The split is empty in rows of a table of splits or folds that have none.
    """
    if _has_cells(path) or path.suffix.lower() in LISTS:
        rows: list[Texts] = [*_cells(path)]
    else:
        content = _content_of(path)
        if isinstance(content, dict) and any(map(split_word, content)):
            for key, members in content.items():
                if (split := split_word(key)) and isinstance(members, list):
                    yield from ((WHOLE_NAMES[split], [one]) for one in members if isinstance(one, str))
            return
        rows = [*_rows_of_keys(content)]
    split_rows = [(WHOLE_NAMES.get("".join(map(split_word, row)), ""), row) for row in rows]
    header = {cell.strip().lower() for cell in (rows[0] if rows else ())}
    says_splits = is_named_as_splits(path) or bool(header & SPLIT_COLUMNS)
    if sum(not split for split, _ in split_rows) <= 1 or says_splits:  # one is the header
        for split, row in split_rows:
            if split or says_splits:
                yield split, ["" if split_word(cell) else cell for cell in row]


def _content_of(path: Path) -> Any:
    """Returns the content of a JSON or YAML file, with texts for all names of YAML; None if it cannot be read."""
    with suppress(MaskcastError):  # reported where the file is used
        if path.suffix.lower() == ".json":
            return read_json(path)
        return read_yaml(path, "file of splits", "give another", yaml.BaseLoader)
    return None


def _texts_of(content: Any) -> list[str]:
    """Returns a list of texts, or an empty one for other content."""
    return content if isinstance(content, list) and all(isinstance(one, str) for one in content) else []


def _rows_of_keys(content: Any) -> Iterator[Texts]:
    """Yields key and text of each text in a mapping, also an inner one, and the texts of a mapping in a list."""
    if isinstance(content, list):
        for one in content:
            if isinstance(one, dict):
                yield [text for text in one.values() if isinstance(text, str)]
    elif isinstance(content, dict):
        for key, value in content.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str):
                    yield [key, text]
            yield from _rows_of_keys(value) if isinstance(value, dict) else ()


def _cells(path: Path) -> list[list[str]]:
    """Returns the rows of a table of separated values; none if it is no table.

    Columns without a header, such as the counters that pandas writes, name nothing.
    """
    rows: list[list[str]] = []
    lines = [line for line in _text_of(path).splitlines() if line.strip()]
    delimiters = ",;\t| " if path.suffix.lower() in LISTS else ",;\t|"
    with suppress(csv.Error):
        rows += csv.reader(lines, delimiter=max(delimiters, key="".join(lines[:1]).count))
    unnamed = {column for column, cell in enumerate(rows[0] if rows else ()) if not cell.strip()}
    return [
        ["" if column in unnamed and not split_word(cell) else cell for column, cell in enumerate(row)]
        for row in rows
    ]


def split_word(cell: str) -> str:
    """Returns a text in lower case if it names a split, else an empty one."""
    word = re.sub(r"(?<=hold|held)[-_ ](?=out)", "", cell.strip().lower()).replace("heldout", "holdout")
    return word if word in WHOLE_NAMES else ""
