"""Places that differ in one part alone, and those of frames and masks that pair by it."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from operator import eq

from maskcast.data.frame_names import NameKey
from maskcast.data.sources.patterns import CLIP
from maskcast.data.video_files.frames import VIDEO_SUFFIXES

Parts = tuple[str, ...]
_SEPARATOR = re.compile(r"[_\-. ]")
_DIGIT = re.compile(r"\d")
# What folders of frames are called, beside others that have the names of their images, such as `annotated`.
_FRAMES = re.compile(
    r"((jpe?g|png|rgb|colou?r|left|raw|original|source)[_-]?)?(images?|imgs?|frames?)|rgb|colou?r|raw|originals?|origin",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Family:
    """Places that differ in one part alone.

    Attributes:
        parts: the place, with an empty text for the part that differs.
        names: that part of each place.
    """

    parts: Parts
    names: frozenset[str]

    def at(self, name: str) -> Parts:
        """Returns the place with a name."""
        return tuple(part or name for part in self.parts)

    def pattern(self, before: str = "", after: str = "") -> str:
        """Returns the pattern where ``{clip}`` stands between two texts."""
        return "/".join(part or f"{before}{CLIP}{after}" for part in self.parts)


def families(places: Iterable[Parts]) -> list[Family]:
    """Returns every way to see places as one that differs in one part."""
    found: dict[Parts, set[str]] = defaultdict(set)
    for parts in places:
        for place, part in enumerate(parts):
            found[(*parts[:place], "", *parts[place + 1 :])].add(part)
    return [Family(parts, frozenset(names)) for parts, names in found.items()]


def called_frames(parts: Parts) -> bool:
    """Whether a folder of a place is called as those of frames are."""
    return any(map(_FRAMES.fullmatch, parts))


def paired_families(
    places: Iterable[Parts], frames: Mapping[Parts, set[NameKey]], masks: Mapping[Parts, set[NameKey]]
) -> tuple[str, str, int] | None:
    """Returns the patterns of frames and masks under which most sequences have both, and how many names both have.

    Of patterns that pair as many, those count that are most alike: `a/frames` and `a/masks` before `old/{clip}`.

    Args:
        places: of frames.
        frames: names of frames by place; none of videos, whose frames may have all.
        masks: names of masks by place.
    """
    best: tuple[tuple[int, ...], str, str] | None = None
    # The largest first: no smaller family can pair as many, and of thousands of sequences that saves minutes.
    image_families, mask_families = (sorted(families(one), key=lambda f: -len(f.names)) for one in (places, masks))
    for images in image_families:
        for labels in mask_families:
            if best is not None and min(len(images.names), len(labels.names)) < best[0][0]:
                break
            for count, ours, theirs in _affixes(images.names, labels.names):
                near, there, shared = sum(map(eq, images.parts, labels.parts)), 0, 0
                for name in images.names:
                    if core := _inner(name, *ours):
                        found = masks.get(labels.at(f"{theirs[0]}{core}{theirs[1]}"), set())
                        there += len(found)
                        shared += len(found & frames.get(images.at(name), found))
                alike = (near, len(images.names), ours == theirs, images.parts.index(""))
                rank = (count, *alike, shared, there, called_frames(images.parts))
                if best is None or rank > best[0]:
                    best = rank, images.pattern(*ours), labels.pattern(*theirs)
    return None if best is None else (*best[1:], best[0][-3])


def _inner(name: str, before: str, after: str) -> str:
    """Returns what stands between two texts in a name; nothing where they are not there."""
    inner = name.removeprefix(before).removesuffix(after)
    return inner if name == f"{before}{inner}{after}" else ""


def _affixes(
    images: frozenset[str], labels: frozenset[str]
) -> Iterator[tuple[int, tuple[str, str], tuple[str, str]]]:
    """Yields how many names pair, with what frames' and masks' names have around that of the sequence."""
    if both := images & labels:
        yield len(both), ("", ""), ("", "")
        return
    for longer, shorter, swapped in ((images, labels, False), (labels, images, True)):
        for name in sorted(longer)[:50]:
            for inner in sorted(shorter):
                before, found, after = name.partition(inner)
                if found:
                    count = sum(f"{before}{one}{after}" in longer for one in shorter)
                    around = (before, after)
                    yield count, *(((("", "")), around) if swapped else (around, ("", "")))
    for ours, theirs in product(sorted(images)[:50], sorted(labels)[:50]):
        for cut in _SEPARATOR.finditer(ours):  # img_train and gt_train, train_img and train_gt
            core, tail = ours[: cut.start()], ours[cut.start() :]
            video = tail.lower() in VIDEO_SUFFIXES  # a.mp4 and a_masks
            if core and (theirs.startswith(core + cut[0]) or (video and _SEPARATOR.match(theirs, len(core)))):
                other = theirs.removeprefix(core)
                cores = [name.removesuffix(tail) for name in images if name.endswith(tail)]
                count = sum(f"{one}{other}" in labels for one in cores)
                if count > 1 or not _DIGIT.search(other if video else tail + other):  # not `take_1` and `take_2`
                    yield count, ("", tail), ("", other)
            head, core = ours[: cut.end()], ours[cut.end() :]
            if core and theirs.endswith(cut[0] + core):
                other = theirs.removesuffix(core)
                cores = [name.removeprefix(head) for name in images if name.startswith(head)]
                count = sum(f"{other}{one}" in labels for one in cores)
                if count > 1 or not _DIGIT.search(head + other):
                    yield count, (head, ""), (other, "")
