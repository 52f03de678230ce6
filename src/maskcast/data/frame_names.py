"""What frame names tell: the same picture in two files, frame numbers, and gaps in a clip."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from maskcast.data.images import IMAGE_SUFFIXES, image_files
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.labels import natural_sort_key
from maskcast.reading import pluralize

NameKey = tuple[tuple[int, int | str], ...]
SHOWN = 3  # number of names in a message
BESIDE = frozenset({"", ".csv", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"})  # ignored without a message


def is_image(path: Path) -> bool:
    """Whether a path is a file with the ending of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()


def frame_files(folder: Path) -> list[Path]:
    """Lists the images of a folder as the frames of one clip; an image is a clip of one.

    Raises:
        MaskcastError: if two files are the same frame or have the same number, so that not all are frames.
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
    """Returns the endings of files that may be pictures but are not supported, e.g. `.heic, .gif`."""
    endings = {path.suffix.lower() for path in folder.iterdir() if not is_junk(path.name)}
    return ", ".join(sorted(endings - IMAGE_SUFFIXES - BESIDE))


def original_name(name: str) -> str:
    """Returns the name of the image that an image is a copy of; Roboflow appends `.rf.` and a hash to each."""
    return name.partition(".rf.")[0]


def same_names(paths: Sequence[Path]) -> str:
    """Returns a message about files of one folder that differ only in their ending; empty if there are none."""
    seen: dict[Path, Path] = {}
    twins = [(first, path) for path in paths if (first := seen.setdefault(path.with_suffix(""), path)) is not path]
    return (
        f"{pluralize(len(twins), 'image', 'is', 'are')} named as another ({twins[0][0].name}, {twins[0][1].name})"
        if twins
        else ""
    )


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Returns files by their names without ending; see `unique`."""
    return unique((path.stem, path) for path in files)


def unique(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Returns files by name.

    Raises:
        MaskcastError: if two names are equal, or differ only in case or leading zeros.
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
    """Returns two names with equal numbers but different text, e.g. `0001` and `0001_mask`, or None."""
    seen: dict[tuple[int, ...], str] = {}
    for name in names:
        numbers = tuple(map(int, re.findall(r"\d+", name)))
        if numbers and seen.setdefault(numbers, name) != name:
            return seen[numbers], name
    return None


def name_key(name: str) -> NameKey:
    """Returns a key that is equal for names which differ only in case, leading zeros or Unicode form."""
    return tuple(natural_sort_key(unicodedata.normalize("NFC", name).lower()))


def runs(keys: Sequence[str]) -> list[range]:
    """Returns the ranges of a sequence with consecutive frames, by the numbers in their keys.

    A range ends where numbers are missing, names change their form, or a count restarts after a higher number
    changes (`1_0023`, `2_0000`). Several numbers may increase together (`1_0007_000023`, `1_0008_000024`). Keys
    without numbers, or with numbers that are no count (times of day), are consecutive in their sorted order.
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
    """Returns the names of the first few files, as text."""
    more = ", ..." if len(paths) > SHOWN else ""
    return ", ".join(path.name for path in paths[:SHOWN]) + more


def _grown(before: str, after: str) -> dict[int, int] | None:
    """Returns the increase of each number that differs, by position; None if the names differ elsewhere."""
    if skeleton(before) != skeleton(after):
        return None if re.search(r"\d", before + after) else {}
    pairs = zip(re.findall(r"\d+", before), re.findall(r"\d+", after), strict=True)
    return {place: int(b) - int(a) for place, (a, b) in enumerate(pairs) if int(a) != int(b)}


def _step(grown: Mapping[int, int] | None, together: Sequence[int]) -> int | None:
    """Returns the increase of the counting number; 0 where a new count begins, None where there is no count.

    Args:
        grown: increase of each number that differs.
        together: positions of the numbers that change together in most names.
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
    """Whether the last number wraps around from its highest value, as in times: 12-59 is followed by 13-00."""
    last, first = (re.findall(r"\d+", key)[-1:] for key in (before, after))
    wraps = 60 if len("".join(last)) == 2 else 10 ** len("".join(last))
    return not last or int(first[0]) == (int(last[0]) + step) % wraps


def skeleton(key: str) -> str:
    """Returns a name with each number replaced by 0."""
    return re.sub(r"\d+", "0", key)
