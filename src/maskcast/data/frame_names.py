"""What frame names tell: the same picture in two files, frame numbers, and gaps in a clip."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from pathlib import Path

from maskcast.data.images import IMAGE_SUFFIXES, image_files
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.labels import natural_sort_key
from maskcast.reading import first_few, pluralize

NameKey = tuple[tuple[int, int | str], ...]
_DIGITS = re.compile(r"\d+")
MAX_NAMES = 3  # number of names in a message
METADATA_SUFFIXES = frozenset({"", ".csv", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"})  # ignored silently


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
    if (pair := find_same_number(files)) is not None:
        raise MaskcastError(
            f"{folder}: {files[pair[0]].name} and {files[pair[1]].name} have the same number, so not all images "
            "are frames; keep the frames of one clip in this folder, and masks in another"
        )
    return list(files.values())


def unsupported_suffixes(folder: Path) -> str:
    """Returns the endings of files that may be pictures but are not supported, e.g. `.heic, .gif`."""
    known = IMAGE_SUFFIXES | METADATA_SUFFIXES
    others = [path for path in folder.iterdir() if path.suffix.lower() not in known and not is_junk(path.name)]
    return ", ".join(sorted({path.suffix.lower() for path in others if path.is_file()}))


def original_name(name: str) -> str:
    """Returns the name of the image that an image is a copy of; Roboflow appends `.rf.` and a hash to each."""
    return name.partition(".rf.")[0]


def same_stem_warning(paths: Sequence[Path]) -> str:
    """Returns a message about files of one folder that differ only in their ending; empty if there are none."""
    seen: dict[Path, Path] = {}
    pairs = [(first, path) for path in paths if (first := seen.setdefault(path.with_suffix(""), path)) is not path]
    if not pairs:
        return ""
    return (
        f"{pluralize(len(pairs), 'image', 'is', 'are')} named as another ({pairs[0][0].name}, {pairs[0][1].name})"
    )


def by_stem(files: Iterable[Path]) -> dict[str, Path]:
    """Returns files by their names without ending; see `unique_by_name`."""
    return unique_by_name((path.stem, path) for path in files)


def by_key(files: Iterable[Path]) -> dict[NameKey, Path]:
    """Returns files by the `name_key` of their names without ending; see `unique_by_name`."""
    return {name_key(stem): path for stem, path in by_stem(files).items()}


def unique_by_name(named: Iterable[tuple[str, Path]]) -> dict[str, Path]:
    """Returns files by name.

    Raises:
        MaskcastError: if two names are equal, or differ only in case or leading zeros.
    """
    seen: dict[NameKey, tuple[str, Path]] = {}
    for name, path in named:
        first = seen.setdefault(name_key(name), (name, path))[1]
        if first is not path:
            raise MaskcastError(f"{path}: has the same name as {first.name}; remove one of the two")
    return dict(seen.values())


def find_same_number(names: Iterable[str]) -> tuple[str, str] | None:
    """Returns two names with equal numbers but different text, e.g. `0001` and `0001_mask`, or None."""
    name_by_numbers: dict[tuple[int, ...], str] = {}
    for name in names:
        numbers = tuple(map(int, re.findall(r"\d+", name)))
        if numbers and name_by_numbers.setdefault(numbers, name) != name:
            return name_by_numbers[numbers], name
    return None


def folded(name: str) -> str:
    """Returns a text that is equal for names which differ only in case or Unicode form."""
    return unicodedata.normalize("NFC", name).lower()


def class_key(name: str) -> str:
    """Returns a text that is equal for names of classes which differ only in case, spaces or Unicode form."""
    return " ".join(folded(name).split())


@lru_cache(maxsize=1 << 16)  # sequences share the names of their frames, and lines of lists their folders
def name_key(name: str) -> NameKey:
    """Returns a key that is equal for names which differ only in case, leading zeros or Unicode form."""
    return tuple(natural_sort_key(folded(name)))


def _letters_of(name: str) -> str:
    """Returns a text that is equal for names with one `name_key`, and for others that differ in numbers."""
    return _DIGITS.sub("", folded(name))


class NameIndex:
    """Finds the names that a user's file or params mean: the same name, else the only one with its `name_key`.

    Args:
        names: the names that exist.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)

    @cached_property
    def _by_key(self) -> dict[NameKey, list[str]]:  # takes seconds for 100,000 names, and most are the same
        found: dict[NameKey, list[str]] = defaultdict(list)
        for name in self._names:
            found[name_key(name)].append(name)
        return found

    @cached_property
    def _letters(self) -> set[str]:
        return {_letters_of(name) for name in self._names}

    def find(self, written: str) -> str | None:
        """Returns the name that is meant, or None."""
        if written in self._names:
            return written
        if _letters_of(written) not in self._letters:  # takes a third of the time of a key
            return None
        same = self._by_key.get(name_key(written), ())
        return same[0] if len(same) == 1 else None


def consecutive_runs(keys: Sequence[str]) -> list[range]:
    """Returns the ranges of a sequence with consecutive frames, by the numbers in their keys.

    A range ends where numbers are missing, names change their form, or a count restarts after a higher number
    changes (`1_0023`, `2_0000`). Several numbers may increase together (`1_0007_000023`, `1_0008_000024`). Keys
    without numbers, or with numbers that are no count (times of day), are consecutive in their sorted order.
    """
    increments = [_increments(before, after) for before, after in pairwise(keys)]
    changed = Counter(tuple(positions) for positions in increments if positions)
    common, frequency = changed.most_common(1)[0] if changed else ((), 0)
    steps = [_step(each, common if 2 * frequency > len(increments) else ()) for each in increments]
    known_steps = [step for step in steps if step]
    usual_step = min(known_steps, default=0)
    is_counting = (
        bool(known_steps)
        and Counter(known_steps)[usual_step] * 2 > len(known_steps)
        and all(step % usual_step == 0 for step in known_steps)
    )
    ranges, start = [], 0
    for k, step in enumerate(steps, 1):
        is_gap = step > usual_step if step is not None else not _wraps_around(keys[k - 1], keys[k], usual_step)
        if step == 0 or (is_counting and is_gap):
            ranges.append(range(start, k))
            start = k
    return [*ranges, range(start, len(keys))] if keys else []


def format_names(paths: Sequence[Path]) -> str:
    """Returns the names of the first few files, as text."""
    return first_few([path.name for path in paths], MAX_NAMES)


def _increments(before: str, after: str) -> dict[int, int] | None:
    """Returns the increase of each number that differs, by position; None if the names differ elsewhere."""
    if name_pattern(before) != name_pattern(after):
        return None if re.search(r"\d", before + after) else {}
    pairs = zip(re.findall(r"\d+", before), re.findall(r"\d+", after), strict=True)
    return {position: int(b) - int(a) for position, (a, b) in enumerate(pairs) if int(a) != int(b)}


def _step(increments: Mapping[int, int] | None, common: Sequence[int]) -> int | None:
    """Returns the increase of the counting number; 0 where a new count begins, None where there is no count.

    Args:
        increments: increase of each number that differs.
        common: positions of the numbers that change together in most names.
    """
    if increments is None:
        return 0
    positions = tuple(increments)
    if len(common) > 1 and positions == tuple(common) and min(increments.values()) > 0:
        return increments[positions[-1]]
    if len(common) > 1 and positions[:1] < tuple(common[:1]) and increments.get(common[0], 0) > 0:
        return 0
    return increments[positions[0]] if len(positions) == 1 and increments[positions[0]] > 0 else None


def _wraps_around(before: str, after: str, step: int) -> bool:
    """Whether the last number wraps around from its highest value, as in times: 12-59 is followed by 13-00."""
    last, first = (re.findall(r"\d+", key)[-1:] for key in (before, after))
    modulus = 60 if len("".join(last)) == 2 else 10 ** len("".join(last))
    return not last or int(first[0]) == (int(last[0]) + step) % modulus


def name_pattern(key: str) -> str:
    """Returns a name with each number replaced by 0."""
    return re.sub(r"\d+", "0", key)
