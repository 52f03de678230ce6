"""The splits that a data set comes with, by the names of its folders or by lists in text files."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from maskcast.data.sources.footage import Footage
from maskcast.files import files_below

SPLIT_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SPLIT_NAMES |= {split: split for split in ("train", "val", "test")}


def given_splits(
    raw: Path, names: Sequence[str], footage: Mapping[str, Footage], files: Mapping[str, Collection[Path]]
) -> tuple[dict[str, tuple[str, ...]], str]:
    """Returns the sequences of `val` and `test`, as far as a data set says so, and what says it.

    Args:
        raw: the folder of the data.
        names: of the labelled sequences.
        footage: all sequences.
        files: of labels, by sequence.
    """
    by_folder = {
        name: split for name in names if (split := _split_of(raw, name, footage[name], files.get(name, ())))
    }
    found = {name: split for name, (split, exact) in by_folder.items() if exact or len(by_folder) == len(names)}
    if {"val", "test"} & {*found.values()} and (len(found) < len(names) or "train" in found.values()):
        return _held_out(found), "folders are named so"
    best: tuple[dict[str, str], str] = {}, ""
    for folder in sorted({path.parent for path in files_below(raw, ".txt") if path.stem.lower() in SPLIT_NAMES}):
        listed, origin = _listed(folder, names)
        if len(listed) > len(best[0]) and 0 < len(of_split(listed, "val", "test")) < len(names):
            best = listed, f"as {(folder / origin).relative_to(raw).as_posix()} lists them"
    return _held_out(best[0]), best[1]


def of_split(splits: Mapping[str, str], *wanted: str) -> tuple[str, ...]:
    """Returns the names whose split is one of those wanted."""
    return tuple(name for name, split in splits.items() if split in wanted)


def split_of_name(name: str) -> tuple[str, bool] | None:
    """Returns the split that a name tells, and whether it says nothing else: `Train`, `train2017`, `uavid_val`."""
    if name.lower() in SPLIT_NAMES:
        return SPLIT_NAMES[name.lower()], True
    words = {SPLIT_NAMES[word] for word in re.findall("[a-z]+", name.lower()) if word in SPLIT_NAMES}
    return (words.pop(), False) if len(words) == 1 else None


def _split_of(raw: Path, name: str, one: Footage, files: Collection[Path]) -> tuple[str, bool] | None:
    """Returns what the name of a sequence says, or its folders, or else its files of labels, if these agree."""
    if (own := split_of_name(name)) and own[1]:
        return own
    images = [one.images] if isinstance(one.images, Path) else one.images
    for places in ({path.parent for path in images}, {file.with_suffix("") for file in files}):
        told = {next(_told(place.relative_to(raw)), None) for place in places}
        if len(told) == 1 and (split := told.pop()):
            return split
    return None


def _told(folder: Path) -> Iterator[tuple[str, bool]]:
    """Yields what the parts of a path say, the last first."""
    for part in reversed(folder.parts):
        if (found := split_of_name(part)) is not None:
            yield found


def _held_out(splits: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Returns the names of each split but `train`."""
    return {split: members for split in ("val", "test") if (members := of_split(splits, split))}


def _listed(folder: Path, names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Returns the split of each name that the lists of a folder have, and the list that holds some out.

    Nothing where a name stands in two of them: they are of single frames then.
    """
    found: dict[str, str] = {}
    origin = ""
    for path in sorted(folder.glob("*.txt"), key=lambda path: SPLIT_NAMES.get(path.stem.lower(), "") != "val"):
        split = SPLIT_NAMES.get(path.stem.lower())
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines() if split else []
        mine = {name for line in lines if (name := _name_in(line.strip(), names))}
        if any(found.get(name, split) != split for name in mine):
            return {}, ""
        found |= {name: str(split) for name in names if name in mine}
        origin = origin or (path.name if mine and split != "train" else "")
    return found, origin


def _name_in(line: str, names: Collection[str]) -> str | None:
    """Returns the name of a sequence in a line: all of it, or a part of a path, less an ending or a number."""
    if line in names:
        return line
    for word in line.split():
        for part in PurePosixPath(word).parts:
            stem = PurePosixPath(part).stem
            for name in (part, stem, re.sub(r"[-_][A-Za-z]?\d+$", "", stem)):
                if name in names:
                    return name
    return None
