"""What the names of frames tell: which files are one picture, which is the number, where a clip has gaps."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from maskcast.data.images import IMAGE_SUFFIXES, image_files
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.labels import id_key
from maskcast.reading import counted

NameKey = tuple[tuple[int, int | str], ...]
SHOWN = 3  # names told in a line
BESIDE = frozenset({"", ".csv", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"})  # left out without a word


def is_image(path: Path) -> bool:
    """Returns whether a path is a file that is named as an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def frame_files(folder: Path) -> list[Path]:
    """Lists the images of a folder as the frames of one clip; an image is a clip of one.

    Raises:
        MaskcastError: when two files are the same frame, or of one number, so that not all of them are frames.
    """
    if is_image(folder):
        return [folder]
    files = by_stem(image_files(folder))
    if (two := same_number(files)) is not None:
        raise MaskcastError(
            f"{folder}: {files[two[0]].name} and {files[two[1]].name} have one number, so not all images there "
            "are frames; leave the frames of one clip there, and masks elsewhere"
        )
    return list(files.values())


def other_endings(folder: Path) -> str:
    """Returns the endings of files that may be pictures and cannot be read, e.g. `.heic, .gif`."""
    endings = {path.suffix.lower() for path in folder.iterdir() if not is_junk(path.name)}
    return ", ".join(sorted(endings - IMAGE_SUFFIXES - BESIDE))


def same_names(paths: Sequence[Path]) -> str:
    """Returns how many files are named as another of their folder but for the ending, or nothing where none is."""
    seen: dict[Path, Path] = {}
    twins = [(first, path) for path in paths if (first := seen.setdefault(path.with_suffix(""), path)) is not path]
    return (
        f"{counted(len(twins), 'image', 'is', 'are')} named as another ({twins[0][0].name}, {twins[0][1].name})"
        if twins
        else ""
    )


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Returns files by their names without endings; see `unique`."""
    return unique((path.stem, path) for path in files)


def unique(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Returns files by name.

    Raises:
        MaskcastError: when two names are one, or differ in case or leading zeros alone.
    """
    found: dict[NameKey, tuple[str, Path]] = {}
    for name, path in named:
        twin = found.setdefault(name_key(name), (name, path))[1]
        if twin is not path:
            raise MaskcastError(
                f"{path}: by its name it is the same picture as {twin.name}; take one of the two away"
            )
    return dict(found.values())


def same_number(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns two names with the same numbers in another text, e.g. `0001` and `0001_mask`; None without any."""
    seen: dict[tuple[int, ...], str] = {}
    for name in names:
        numbers = tuple(map(int, re.findall(r"\d+", name)))
        if numbers and seen.setdefault(numbers, name) != name:
            return seen[numbers], name
    return None


def name_key(name: str) -> NameKey:
    """Returns what two names have in common that differ in case, leading zeros or the form of an accent alone."""
    return tuple(id_key(unicodedata.normalize("NFC", name).lower()))


def runs(keys: Sequence[str]) -> list[range]:
    """Returns the parts of a sequence whose frames follow each other, by the numbers in their keys.

    A part ends where numbers are missing, names change their form, or a count begins anew behind another number
    (`1_0023`, `2_0000`). Several numbers may count together (`1_0007_000023`, `1_0008_000024`). Keys without
    numbers, and numbers that are no count (times of day), follow each other as they are sorted.
    """
    grown = [_grown(before, after) for before, after in pairwise(keys)]
    together, often = Counter(tuple(one) for one in grown if one).most_common(1)[0] if any(grown) else ((), 0)
    steps = [_step(one, together if 2 * often > len(grown) else ()) for one in grown]
    known = [step for step in steps if step]
    usual = min(known, default=0)
    counts = bool(known) and Counter(known)[usual] * 2 > len(known) and all(step % usual == 0 for step in known)
    found, start = [], 0
    for k, step in enumerate(steps, 1):
        ends = step > usual if step is not None else not _carried(keys[k - 1], keys[k], usual)
        if step == 0 or (counts and ends):
            found.append(range(start, k))
            start = k
    return [*found, range(start, len(keys))] if keys else []


def first_names(paths: Sequence[Path]) -> str:
    """Returns the names of the first few files."""
    more = ", ..." if len(paths) > SHOWN else ""
    return ", ".join(path.name for path in paths[:SHOWN]) + more


def _grown(before: str, after: str) -> dict[int, int] | None:
    """Returns how far each number that differs grew, by its place; None where names differ elsewhere."""
    if skeleton(before) != skeleton(after):
        return None if re.search(r"\d", before + after) else {}
    pairs = zip(re.findall(r"\d+", before), re.findall(r"\d+", after), strict=True)
    return {place: int(b) - int(a) for place, (a, b) in enumerate(pairs) if int(a) != int(b)}


def _step(grown: Mapping[int, int] | None, together: Sequence[int]) -> int | None:
    """Returns how far the one number that differs grew; 0 where a new count begins, None where none is kept.

    Args:
        grown: how far each number grew.
        together: the places of those that differ in most names.
    """
    if grown is None:
        return 0
    places = tuple(grown)
    if len(together) > 1 and places == tuple(together) and min(grown.values()) > 0:
        return grown[places[-1]]
    if len(together) > 1 and places[:1] < tuple(together[:1]) and grown.get(together[0], 0) > 0:
        return 0
    return grown[places[0]] if len(places) == 1 and grown[places[0]] > 0 else None


def _carried(before: str, after: str, step: int) -> bool:
    """Returns whether the last number goes on from its highest to its lowest, as in times: 12-59 before 13-00."""
    last, first = (re.findall(r"\d+", key)[-1:] for key in (before, after))
    wraps = 60 if len("".join(last)) == 2 else 10 ** len("".join(last))
    return not last or int(first[0]) == (int(last[0]) + step) % wraps


def skeleton(key: str) -> str:
    """Returns what a name is beside its numbers."""
    return re.sub(r"\d+", "0", key)
