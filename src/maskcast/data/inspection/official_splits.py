"""Finds the official splits of a data set from folder names, lists or tables."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from maskcast.data.frame_names import NameIndex
from maskcast.data.inspection.split_lists import LISTS, ListRow, read_lists, split_of_name, split_word
from maskcast.data.sources.sequence_files import SequenceFiles
from maskcast.reading import first_few, pluralize

MAX_NAMES = 3  # in a message, of lists and of names that a list has


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
    """A row of a list: its split, whether that is certain, one of its texts, and the sequences that it names."""

    split: str
    certain: bool
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
        unused, omitted, folds = list[str](), list[str](), list[Path]()
        for place, lists in self._lists:
            listed, twice = _one_split_each(lists, names)
            held_out = names_in(listed, "val", "test")
            if twice is not None:
                unused.append(f"{self._called(lists)} not used: {twice} is in two splits there")
            elif held_out and len(held_out) == len(names):
                unused.append(f"{self._called(lists)} not used: no sequence would be left to train on")
            elif held_out and len(listed) > len(best[0]):
                best = listed, _first_held_out(lists, names, place), lists
                omitted = [*self._omitted(lists, listed, names)]
            elif empty := [path for path, rows in lists.items() if _names_nothing(path, rows)]:
                unused.append(f"{self._called(empty)} not used: no name there matches a sequence")
            elif listed and not any(listed.values()):
                folds += lists
            elif not best[0]:
                omitted += self._omitted(lists, listed, names)
        if folds:
            unused.append(
                f"{self._called(folds)} not used: no row says train, val or test; name the sequences that are "
                "held out in source.splits"
            )
        if not best[0]:
            return Official({}, "", (*unused, *omitted[:1]))
        origin = f"as {best[1].relative_to(self._raw).as_posix()} lists them"
        return Official(_held_out(best[0]), origin, (*self._unmatched(best[2]), *omitted))

    @cached_property
    def _lists(self) -> list[tuple[Path, Lists]]:
        index = _Sequences(self._footage)
        return [
            (place, {path: index.rows(rows) for path, rows in lists.items()})
            for place, lists in read_lists(self._raw)
        ]

    def _called(self, lists: Iterable[Path]) -> str:
        """Returns the paths of lists and a verb, as text."""
        paths = [path.relative_to(self._raw).as_posix() for path in lists]
        named = first_few(paths, MAX_NAMES, f" and {len(paths) - MAX_NAMES} more")
        return f"{named} {'were' if len(paths) > 1 else 'was'}"

    def _omitted(self, lists: Lists, listed: Mapping[str, str], names: Sequence[str]) -> Iterator[str]:
        """Yields a sentence about sequences that a list of `train` lacks, and all lists beside it."""
        left = [name for name in names if not listed.get(name)]
        trains = (path for path, rows in lists.items() if any(row.split == "train" and row.names for row in rows))
        if left and (path := next(trains, None)) is not None:
            yield (
                f"{path.relative_to(self._raw).as_posix()} omits {pluralize(len(left), 'sequence')} with labels "
                f"({first_few(left, MAX_NAMES)}), which may be trained on: name them in splits.test or "
                "splits.hidden if they are held out"
            )

    def _unmatched(self, lists: Lists) -> Iterator[str]:
        """Yields a sentence about the names in lists that match no sequence."""
        parts = []
        for path, rows in lists.items():
            given = (
                rows[1:] if path.suffix.lower() in (".csv", ".tsv") and rows and not rows[0].names else rows
            )  # a header
            texts = [row.text for row in given if not row.names and not row.text.startswith("#")]
            if texts:
                parts.append(
                    f"{len(texts)} of {pluralize(len(given), 'name')} in {path.relative_to(self._raw).as_posix()} "
                    f"match no sequence: {first_few(texts, MAX_NAMES)}"
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

    def rows(self, given: Iterable[ListRow]) -> list[_Row]:
        """Returns the rows of a list. Of a table, the column that names sequences in most rows names them in all.

        Names as they are written count first: counters may be names with other leading zeros.
        """
        columns: dict[int, list[tuple[_Row, bool]]] = defaultdict(list)
        for split, certain, texts in given:
            for column, text in enumerate(map(str.strip, texts)):
                if text:
                    names, exact = self._named_by(text)
                    columns[column].append((_Row(split, certain, text, names), exact))
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
            yield from (joined, stem, re.sub(r"([_.-]| \()[A-Za-z]?\d+\)?$", "", stem))


def names_in(splits: Mapping[str, str], *wanted: str) -> tuple[str, ...]:
    """Returns the names whose split is in ``wanted``."""
    return tuple(name for name, split in splits.items() if split in wanted)


def _split_of(raw: Path, name: str, one: SequenceFiles, files: Collection[Path]) -> tuple[str, bool] | None:
    """Returns the split in a sequence's name, else in its folders, else in those of its labels, if these agree.

    Labels in a folder of `val` or `test` say more than frames in one of `train`, as KITTI-STEP has them.
    """
    if (own := split_of_name(name)) and own[1]:
        return own
    found: list[tuple[str, bool]] = []
    for places in ({path.parent for path in one.frames.files}, {file.with_suffix("") for file in files}):
        splits = {next(_splits_in_path(place.relative_to(raw)), None) for place in places}
        if len(splits) == 1 and (split := splits.pop()):
            found.append(split)
    held_out = [(split, exact) for split, exact in found if exact and split != "train"]
    return next(iter([*held_out, *found]), None)


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

    Lists that give a sequence two splits are not of sequences, but of frames. Rows that are not certain say
    nothing of a sequence that has a split, if certain ones hold some out.
    """
    found: dict[str, str] = {}
    known = set(names)
    rows = sorted((row for rows in lists.values() for row in rows), key=lambda row: not row.certain)
    held_out = any(row.certain and row.split in ("val", "test") and known.intersection(row.names) for row in rows)
    for row in rows:
        for name in row.names:
            is_other = name in known and found.setdefault(name, row.split) != row.split
            if is_other and (row.certain or not held_out):
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
    is_list = path.suffix.lower() not in LISTS or bool(split_word(path.stem))
    held_out = [row for row in rows if row.split in ("val", "test")]
    return is_list and bool(held_out) and not any(row.names for row in held_out)
