"""Finds the official splits of a data set from folder names, lists or tables."""

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath

from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import read_file, read_json

SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in ("train", "val", "test")}
MAX_TABLE_BYTES = 1 << 20  # maximum size of a table in bytes
Rows = list[tuple[str, str]]  # split and line, or cell, of a list
MAX_LISTS = 100  # per folder: more texts named after splits, such as `train_000012.txt`, belong to single images


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

    def of(self, names: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], str]:
        """Returns the sequences of the splits `val` and `test` among ``names``, if any, and where they are."""
        by_folder = {
            name: split
            for name in names
            if (split := _split_of(self._raw, name, self._footage[name], self._files.get(name, ())))
        }
        found = {
            name: split for name, (split, exact) in by_folder.items() if exact or len(by_folder) == len(names)
        }
        if {"val", "test"} & {*found.values()} and (len(found) < len(names) or "train" in found.values()):
            return _held_out(found), "folders are named so"
        best: tuple[dict[str, str], Path] = {}, self._raw
        known = dict.fromkeys(names)
        for place, lists in self._lists:
            listed, path = _listed_splits(place, lists, known)
            if len(listed) > len(best[0]) and 0 < len(names_in(listed, "val", "test")) < len(names):
                best = listed, path
        origin = f"as {best[1].relative_to(self._raw).as_posix()} lists them" if best[0] else ""
        return _held_out(best[0]), origin

    @cached_property
    def _lists(self) -> list[tuple[Path, dict[Path, Rows]]]:
        return list(_read_lists(self._raw))


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


def _listed_splits(place: Path, lists: Mapping[Path, Rows], names: Collection[str]) -> tuple[dict[str, str], Path]:
    """Returns the splits by name that lists give together, and the first one that names `val` or `test`."""
    found = {path: _splits_in(rows, names) for path, rows in lists.items()}
    held_out = (path for path, one in found.items() if {"val", "test"} & {*one.values()})
    rows = [(split, name) for one in found.values() for name, split in one.items()]
    return _one_split_each(rows, names), next(held_out, place)


def _read_lists(raw: Path) -> Iterator[tuple[Path, dict[Path, Rows]]]:
    """Yields lists that belong together, with the split and text of each line, and their place.

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


def _lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yields the split in a list's name, and a line of the list, for each line."""
    for line in _text_of(path).splitlines():
        yield _split_of_list(path), line.replace(",", " ") if path.suffix.lower() == ".csv" else line


def _rows_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yields split and member for each row of a table, such as `a,train`, or of `{"train": ["a"]}`."""
    if path.suffix.lower() == ".json":
        content = None
        with suppress(MaskcastError):  # reported where the file is used
            content = read_json(path)
        for key, members in content.items() if isinstance(content, dict) else ():
            if key.lower() in SPLIT_NAMES and isinstance(members, list):
                yield from ((SPLIT_NAMES[key.lower()], one) for one in members if isinstance(one, str))
        return
    rows: list[list[str]] = []
    with suppress(csv.Error):  # not a table
        rows += csv.reader(_text_of(path).splitlines())
    split_rows = [(SPLIT_NAMES.get("".join(map(_split_word, row)), ""), row) for row in rows]
    if sum(not split for split, _ in split_rows) <= 1:  # the header
        yield from ((split, cell) for split, row in split_rows for cell in row if split and not _split_word(cell))


def _split_word(cell: str) -> str:
    """Returns a table cell in lower case if it names a split, else an empty text."""
    word = cell.strip().lower()
    return word if word in SPLIT_NAMES else ""


def _splits_in(rows: Rows, names: Collection[str]) -> dict[str, str]:
    """Returns the split of each name in lines; empty if a name has two splits, as lines are then single frames."""
    found = ((split, _name_in(line.strip(), names)) for split, line in rows)
    return _one_split_each(((split, name) for split, name in found if name), names)


def _one_split_each(rows: Iterable[tuple[str, str]], names: Collection[str]) -> dict[str, str]:
    """Returns the split of each name, in the order of ``names``; empty if a name has two splits."""
    found: dict[str, str] = {}
    for split, name in rows:
        if found.setdefault(name, split) != split:
            return {}
    return {name: found[name] for name in names if name in found}


def _name_in(line: str, names: Collection[str]) -> str | None:
    """Returns the sequence in a line: the whole line, or a part of a path without ending or frame number."""
    if line in names:
        return line
    for word in line.split():
        for part in PurePosixPath(word).parts:
            stem = PurePosixPath(part).stem
            for name in (part, stem, re.sub(r"[-_][A-Za-z]?\d+$", "", stem)):
                if name in names:
                    return name
    return None
