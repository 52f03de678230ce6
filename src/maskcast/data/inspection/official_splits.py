"""Finds the official splits of a data set from folder names, lists or tables."""

import csv
import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from maskcast.data.frame_names import NameIndex
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import pluralize, read_file, read_json

SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in ("train", "val", "test")}
MAX_TABLE_BYTES = 1 << 20  # maximum size of a table in bytes
Texts = Sequence[str]  # of a row: the line of a list, or the cells of a table, of which one may name a sequence
MAX_NAMES = 3  # in a message, of lists and of names that a list has
MAX_LISTS = 100  # per folder: more texts named after splits, such as `train_000012.txt`, belong to single images


class Official(NamedTuple):
    """Official splits of some sequences.

    Attributes:
        splits: the sequences of `val` and `test`, if any.
        origin: where they are.
        checks: what the owner should know of the lists, one sentence each.
    """

    splits: dict[str, tuple[str, ...]]
    origin: str
    checks: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Row:
    """A row of a list: its split, its first text, and the sequences that it names."""

    split: str
    text: str
    names: tuple[str, ...]


Lists = Mapping[Path, Sequence[_Row]]  # that belong together


class OfficialSplits:
    """The official splits of a data set; its lists and tables are read at most once.

    Args:
        raw: folder of the data.
        footage: all sequences.
        files: label files, or folders of masks, by sequence.
    """

    def __init__(
        self, raw: Path, footage: Mapping[str, SequenceFiles], files: Mapping[str, Collection[Path]]
    ) -> None:
        self._raw, self._footage, self._files = raw, footage, files

    def of(self, names: Sequence[str]) -> Official:
        """Returns the official splits of the sequences ``names``."""
        by_folder = {
            name: split
            for name in names
            if (split := _split_of(self._raw, name, self._footage[name], self._files.get(name, ())))
        }
        found = {
            name: split for name, (split, exact) in by_folder.items() if exact or len(by_folder) == len(names)
        }
        if {"val", "test"} & {*found.values()} and (len(found) < len(names) or "train" in found.values()):
            return Official(_held_out(found), "folders are named so")
        best: tuple[dict[str, str], Path, Lists] = {}, self._raw, {}
        unused: list[str] = []
        for place, lists in self._lists:
            listed, twice = _one_split_each(lists, names)
            held_out = names_in(listed, "val", "test")
            if twice is not None:
                unused.append(f"{self._called(lists)} not used: {twice} is in two splits there")
            elif held_out and len(held_out) == len(names):
                unused.append(f"{self._called(lists)} not used: no sequence would be left to train on")
            elif held_out and len(listed) > len(best[0]):
                best = listed, _first_held_out(lists, names, place), lists
            elif empty := [path for path, rows in lists.items() if _names_nothing(path, rows)]:
                unused.append(f"{self._called(empty)} not used: no name there matches a sequence")
        if not best[0]:
            return Official({}, "", tuple(unused))
        origin = f"as {best[1].relative_to(self._raw).as_posix()} lists them"
        return Official(_held_out(best[0]), origin, tuple(self._unmatched(best[2])))

    @cached_property
    def _lists(self) -> list[tuple[Path, Lists]]:
        index = _Sequences(self._footage)
        return [
            (place, {path: index.rows(rows) for path, rows in lists.items()})
            for place, lists in _read_lists(self._raw)
        ]

    def _called(self, lists: Iterable[Path]) -> str:
        """Returns the paths of lists and a verb, as text."""
        paths = [path.relative_to(self._raw).as_posix() for path in lists]
        more = f" and {len(paths) - MAX_NAMES} more" if len(paths) > MAX_NAMES else ""
        return f"{', '.join(paths[:MAX_NAMES])}{more} {'were' if len(paths) > 1 else 'was'}"

    def _unmatched(self, lists: Lists) -> Iterator[str]:
        """Yields a sentence about the names in lists that match no sequence."""
        parts = []
        for path, rows in lists.items():
            given = rows[1:] if path.suffix.lower() == ".csv" and rows and not rows[0].names else rows  # a header
            texts = [row.text for row in given if not row.names and not row.text.startswith("#")]
            if texts:
                parts.append(
                    f"{len(texts)} of {pluralize(len(given), 'name')} in {path.relative_to(self._raw).as_posix()} "
                    f"match no sequence: {', '.join(texts[:MAX_NAMES])}{', ...' if texts[MAX_NAMES:] else ''}"
                )
        if parts:
            more = [f"other names in {len(parts) - MAX_NAMES} more lists"] if len(parts) > MAX_NAMES else []
            yield "; ".join([*parts[:MAX_NAMES], *more])


class _Sequences:
    """Finds the sequences that a text names, in upper or lower case, with any leading zeros and Unicode form.

    Args:
        names: names of the sequences; those of several folders, `scene/camera`, are also found by the first ones.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._members: dict[str, dict[str, None]] = defaultdict(dict)
        for name in names:
            self._members[name][name] = None
            parts = name.split("/")
            for count in range(1, len(parts)):
                self._members["/".join(parts[:count])][name] = None
        self._index = NameIndex(self._members)
        self._levels = max((1 + name.count("/") for name in self._members), default=1)

    def rows(self, given: Iterable[tuple[str, Texts]]) -> list[_Row]:
        """Returns the rows of a list. Of a table, the column that names sequences in most rows names them in all.

        Names as they are written count first: counters may be names with other leading zeros.
        """
        columns: dict[int, list[tuple[_Row, bool]]] = defaultdict(list)
        for split, texts in given:
            for column, text in enumerate(map(str.strip, texts)):
                if text:
                    names, exact = self._named_by(text)
                    columns[column].append((_Row(split, text, names), exact))
        counts = {
            column: (sum(exact for _, exact in rows), sum(bool(row.names) for row, _ in rows))
            for column, rows in columns.items()
        }
        return [row for row, _ in columns[max(counts, key=counts.__getitem__)]] if counts else []

    def _named_by(self, text: str) -> tuple[tuple[str, ...], bool]:
        """Returns the sequences that a text names, if any, and whether it has their name as it is.

        The whole text comes before its words, which may be a counter and a name, or parts of a name with spaces.
        """
        whole, words = [text], [word for word in text.split() if word != text]
        for paths in (whole, words):
            parts = dict.fromkeys(part for path in paths for part in _parts(path, self._levels))
            for part in parts:
                if part in self._members:
                    return tuple(self._members[part]), True
            for part in parts:
                if (name := self._index.find(part)) is not None:
                    return tuple(self._members[name]), False
        return (), False


def _parts(path: str, levels: int) -> Iterator[str]:
    """Yields what may be a sequence in a path, likeliest first: it, and its parts without ending and frame number.

    Args:
        path: the path.
        levels: maximum number of folders in the name of a sequence.
    """
    yield path
    folders = [part for part in path.replace("\\", "/").split("/") if part]
    for count in range(min(levels, len(folders)), 0, -1):
        for start in range(len(folders) - count + 1):
            joined = "/".join(folders[start : start + count])
            stem = joined.removesuffix(os.path.splitext(joined)[1])
            yield from (joined, stem, re.sub(r"[-_][A-Za-z]?\d+$", "", stem))


def names_in(splits: Mapping[str, str], *wanted: str) -> tuple[str, ...]:
    """Returns the names whose split is in ``wanted``."""
    return tuple(name for name, split in splits.items() if split in wanted)


def split_of_name(name: str) -> tuple[str, bool] | None:
    """Returns the split in a name, and whether it is the whole name: `Train`, unlike `train2017`, `ValDataset`."""
    if name.lower() in SPLIT_NAMES:
        return SPLIT_NAMES[name.lower()], True
    words = map(str.lower, re.findall("[A-Z]?[a-z]+|[A-Z]+", name))
    bare = [word.removesuffix("set") for word in words]  # `Testset`
    splits = {SPLIT_NAMES[word] for word in bare if word in SPLIT_NAMES}
    return (splits.pop(), False) if len(splits) == 1 else None


def _split_of(raw: Path, name: str, one: SequenceFiles, files: Collection[Path]) -> tuple[str, bool] | None:
    """Returns the split in a sequence's name, else in its folders, else in those of its labels, if these agree."""
    if (own := split_of_name(name)) and own[1]:
        return own
    images = [one.images] if isinstance(one.images, Path) else one.images
    for places in ({path.parent for path in images}, {file.with_suffix("") for file in files}):
        splits = {next(_splits_in_path(place.relative_to(raw)), None) for place in places}
        if len(splits) == 1 and (split := splits.pop()):
            return split
    return None


def _splits_in_path(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yields the splits in the parts of a path, the last part first."""
    for part in reversed(folder.parts):
        if (found := split_of_name(part)) is not None:
            yield found


def _held_out(splits: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns the names of the splits `val` and `test`."""
    return {split: members for split in ("val", "test") if (members := names_in(splits, split))}


def _one_split_each(lists: Lists, names: Collection[str]) -> tuple[dict[str, str], str | None]:
    """Returns the split of each of ``names`` that lists give, in their order, and a name with two splits, or None.

    Lists that give a sequence two splits are not of sequences, but of frames.
    """
    found: dict[str, str] = {}
    known = set(names)
    for row in (row for rows in lists.values() for row in rows):
        for name in row.names:
            if name in known and found.setdefault(name, row.split) != row.split:
                return {}, name
    return {name: found[name] for name in names if name in found}, None


def _first_held_out(lists: Lists, names: Collection[str], default: Path) -> Path:
    """Returns the first list that names a sequence of `val` or `test`."""
    known = set(names)
    held_out = (
        path
        for path, rows in lists.items()
        if any(row.split in ("val", "test") and known.intersection(row.names) for row in rows)
    )
    return next(held_out, default)


def _names_nothing(path: Path, rows: Sequence[_Row]) -> bool:
    """Whether a list of `val` or `test` names no sequence; texts such as `val_log.txt` may be no lists."""
    is_list = path.suffix.lower() != ".txt" or path.stem.lower() in SPLIT_NAMES
    held_out = [row for row in rows if row.split in ("val", "test")]
    return is_list and bool(held_out) and not any(row.names for row in held_out)


def _read_lists(raw: Path) -> Iterator[tuple[Path, dict[Path, list[tuple[str, Texts]]]]]:
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
