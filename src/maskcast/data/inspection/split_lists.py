"""Reads the split that a name says, and lists and tables of the members of splits."""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from maskcast.data.inspection.label_kinds import LabelFiles
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import decode_text, read_file, read_json, read_yaml

SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in ("train", "val", "test")}
HELD_OUT_NAMES = {"dev": "val", "development": "val", "eval": "test", "evaluation": "test", "holdout": "test"}
WHOLE_NAMES = SPLIT_NAMES | HELD_OUT_NAMES  # in names of several words `SPLIT_NAMES` come first: `test-dev`
TABLES = (".csv", ".tsv", ".json", ".yaml", ".yml")
LISTS = (".txt", ".lst")
FOLD_COLUMNS = {"fold", "folds"}
SPLIT_COLUMNS = FOLD_COLUMNS | {"split", "splits", "subset", "partition"}
_SPLITS = re.compile("split|(?<![a-z])folds?(?![a-z])", re.IGNORECASE)  # in the name of a file, unlike `scaffold`
MAX_TABLE_BYTES = 1 << 20  # maximum size of a table in bytes
MAX_LISTS = 100  # per folder: more files named after splits, such as `train_000012.txt`, belong to single images
Texts = Sequence[str]  # of a row: the line of a list, or the cells of a table, of which one may name a sequence


class ListRow(NamedTuple):
    """A row of a list or table.

    Attributes:
        split: `train`, `val` or `test`; empty in all rows of a table of splits or folds that says none.
        certain: whether one of `SPLIT_NAMES` says it; `dev` and `eval` may be parts or copies of other splits.
        texts: the line of a list, or the cells of a table.
    """

    split: str
    certain: bool
    texts: Texts


def split_of_name(name: str) -> tuple[str, bool] | None:
    """Returns the split in a name, and whether it is the whole name: `Train`, unlike `train2017`, `ValDataset`."""
    split, _ = _find_split(_words_of(name))
    return (split, bool(split_word(name))) if split else None


def _words_of(name: str) -> list[str]:
    """Returns the words of a name in lower case, or the word of a split that it is as a whole."""
    if whole := split_word(name):
        return [whole]
    words = map(str.lower, re.findall("[A-Z]?[a-z]+|[A-Z]+", name))
    return [word.removesuffix("set") for word in words]  # `Testset`


def _find_split(words: Sequence[str]) -> tuple[str, bool]:
    """Returns the only split that words name, else an empty text, and whether it is certain; see `ListRow`."""
    for names in (SPLIT_NAMES, HELD_OUT_NAMES):
        if splits := {names[word] for word in words if word in names}:
            return (splits.pop(), names is SPLIT_NAMES) if len(splits) == 1 else ("", False)
    return "", False


def read_lists(raw: Path) -> Iterator[tuple[Path, dict[Path, list[ListRow]]]]:
    """Yields the place of lists that belong together, with their rows.

    Lists are files of one folder whose names say a split, such as `val.txt`, `test-dev.txt` and `val.csv`. Tables,
    which stand alone, are `splits.csv`, `splits.json` or `splits.yaml`.
    """
    files = [path for path in list_files(raw, *TABLES, *LISTS) if path.is_file()]  # not a pipe
    alike = Counter((path.parent, path.suffix) for path in files if is_named_as_splits(path))
    paths = [
        path for path in files if not is_named_as_splits(path) or alike[path.parent, path.suffix] <= MAX_LISTS
    ]
    lists = [path for path in paths if _is_list(path)]
    together = defaultdict[Path, list[Path]](list)
    for path in lists:
        together[path.parent].append(path)
    for folder, own in sorted(together.items()):
        if len(own) <= MAX_LISTS:
            own.sort(key=lambda path: _split_of_list(path)[0] != "val")
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
    if path.stat().st_size > MAX_TABLE_BYTES or not _split_of_list(path)[0]:
        return False
    if _has_cells(path):
        return bool(split_word(path.stem))
    return is_named_as_splits(path) and bool(_texts_of(_content_of(path)))


def is_named_as_splits(path: Path) -> bool:
    """Whether a name says that a file tells splits or folds."""
    return _SPLITS.search(path.stem) is not None


def _has_cells(path: Path) -> bool:
    return path.suffix.lower() in (".csv", ".tsv")


def _split_of_list(path: Path) -> tuple[str, bool]:
    """Returns the split in the name of a list, e.g. `test-dev.txt`, and whether it is certain; see `ListRow`."""
    return _find_split(_words_of(path.stem))


def _text_of(path: Path) -> str:
    return decode_text(read_file(path))[0]


def _lines_of(path: Path) -> Iterator[ListRow]:
    """Yields the rows of a list: each line of a text, or the cells of each row of a table."""
    if path.suffix.lower() in LISTS:
        rows: Iterable[Texts] = ([line] for line in _text_of(path).splitlines() if line.strip())
    else:
        rows = _cells(path) if _has_cells(path) else ([name] for name in _texts_of(_content_of(path)))
    for texts in rows:
        yield ListRow(*_split_of_list(path), texts)


def _rows_of(path: Path) -> Iterator[ListRow]:
    """Yields the rows of a table: `a,train`, `{"train": ["a"]}`, `{"a": "train"}`.

    A column called `split` says the splits. Else one word of each row does, or of some rows if the file is named
    as splits. Rows without a split are left out if others have one.
    """
    if _has_cells(path) or path.suffix.lower() in LISTS:
        rows: list[Texts] = [*_cells(path)]
    else:
        content = _content_of(path)
        if isinstance(content, dict) and any(map(split_word, content)):
            for key, members in content.items():
                split, certain = _find_split([split_word(key)])
                if split and isinstance(members, list):
                    yield from (ListRow(split, certain, [one]) for one in members if isinstance(one, str))
            return
        rows = [*_rows_of_keys(content)]
    header = [cell.strip().lower() for cell in (rows[0] if rows else ())]
    named = is_named_as_splits(path)
    columns = [column for column, cell in enumerate(header) if cell in SPLIT_COLUMNS]
    own = next((k for k in columns if any(split_word(row[k]) for row in rows if k < len(row))), None)
    cells = rows if own is None else [row[own : own + 1] for row in rows]
    said = [_find_split([split_word(cell) for cell in row]) for row in cells]
    may_be_notes = own is None and (bool(columns) or not named)
    if may_be_notes and sum(not split for split, _ in said) > 1:  # one is the header
        said = [("", False)] * len(rows)
    says_none = not any(split for split, _ in said)
    for (split, certain), row in zip(said, rows, strict=True):
        if split or (says_none and (named or FOLD_COLUMNS & {*header})):
            yield ListRow(split, certain, ["" if split_word(cell) else cell for cell in row])


def _content_of(path: Path) -> Any:
    """Returns the content of a JSON or YAML file, with texts for all names of YAML.

    It is None for label files, and if the file cannot be read.
    """
    with suppress(MaskcastError):  # reported where the file is used
        if path.suffix.lower() == ".json":
            return None if LabelFiles(path.parent).has_masks(path) else read_json(path)
        return read_yaml(path, "file of splits", "give another", yaml.BaseLoader)
    return None


def _texts_of(content: Any) -> list[str]:
    """Returns a list of texts, or an empty one for other content."""
    return content if isinstance(content, list) and all(isinstance(one, str) for one in content) else []


def _rows_of_keys(content: Any) -> Iterator[Texts]:
    """Yields key and text of each text in a mapping, also an inner one; of a list of mappings, header and rows."""
    if isinstance(content, list):
        records = [one for one in content if isinstance(one, dict)]
        header = dict.fromkeys(chain.from_iterable(records))
        yield [*header]
        for one in records:
            yield [text if isinstance(text := one.get(key), str) else "" for key in header]
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
    lines = [line for line in _text_of(path).splitlines() if line.strip()]
    rows = _split_lines(lines, ",;\t| " if path.suffix.lower() in LISTS else ",;\t|")
    unnamed = {column for column, cell in enumerate(rows[0] if rows else ()) if not cell.strip()}
    return [
        ["" if column in unnamed and not split_word(cell) else cell for column, cell in enumerate(row)]
        for row in rows
    ]


def _split_lines(lines: Sequence[str], delimiters: str) -> list[list[str]]:
    """Returns the cells of lines, by the delimiter that most lines have; of several, by one that parts splits."""
    counts = {delimiter: sum(delimiter in line for line in lines) for delimiter in delimiters}
    tables = list[list[list[str]]]()
    for delimiter, count in counts.items():
        if count == max(counts.values()):
            rows: list[list[str]] = []
            with suppress(csv.Error):
                rows += csv.reader(lines, delimiter=delimiter)
            tables.append(rows)
    if len(tables) == 1:
        return tables[0]
    return max(
        tables, key=lambda rows: (sum(any(map(split_word, row)) for row in rows), len(rows[0]) if rows else 0)
    )


def split_word(cell: str) -> str:
    """Returns a text in lower case if it names a split, else an empty one."""
    word = re.sub(r"(?<=hold|held)[-_ ](?=out)", "", cell.strip().lower()).replace("heldout", "holdout")
    return word if word in WHOLE_NAMES else ""
