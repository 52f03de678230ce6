"""Finds the patterns of `frame_folders` that name frames and masks by sequence."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import eq, itemgetter
from pathlib import Path, PurePosixPath

from maskcast.data.frame_names import NameKey
from maskcast.data.inspection.streams import Stream
from maskcast.data.sources.patterns import CLIP, FRAME, find_sequences, fixed_folder
from maskcast.errors import MaskcastError

Parts = tuple[str, ...]
MOST_PAIRS = 2500  # of a folder of frames and one of masks whose names are compared
_SEPARATOR = re.compile(r"[_\-. ]")
_DIGIT = re.compile(r"\d")
# What folders of frames are called, beside others that have the names of their images, such as `annotated`.
_FRAMES = re.compile(
    r"((jpe?g|png|rgb|colou?r|left|raw|original|source)[_-]?)?(images?|imgs?|frames?)|rgb|colou?r|raw|originals?|origin",
    re.IGNORECASE,
)
_IN_NAME = re.compile(r"(.+)([_-])([A-Za-z]?\d+)")  # sequence and frame in one name


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


@dataclass(frozen=True)
class Guess:
    """Patterns of frames and masks; ``masks`` is None where there are none."""

    images: str
    masks: str | None = None
    mask_suffix: str | None = None


def families(places: Iterable[Parts]) -> list[Family]:
    """Returns every way to see places as one that differs in one part."""
    found: dict[Parts, set[str]] = defaultdict(set)
    for parts in places:
        for place, part in enumerate(parts):
            found[(*parts[:place], "", *parts[place + 1 :])].add(part)
    return [Family(parts, frozenset(names)) for parts, names in found.items()]


def guess_patterns(frames: Sequence[Stream], videos: Sequence[Parts], masks: Sequence[Stream]) -> Guess | None:
    """Returns the patterns that pair most sequences; None where nothing has the form of sequences.

    Args:
        frames: streams of frames; taken before videos.
        videos: paths of videos.
        masks: streams of masks.
    """
    places = [stream.parts for stream in frames] or _any_ending(videos)
    if len(frames) == len(masks) == 1 and frames[0].parts != masks[0].parts:
        flat = _in_names(frames, masks)
        if flat and CLIP in flat.images and len(_sequences_in_names(frames[0])) > 1:
            return flat
    by_names = _by_shared_names(frames, masks)
    if masks and (found := _paired(places, _keys(frames), _keys(masks))):
        images, labels, shared = found
        if by_names is not None and by_names[0] >= shared and (by_names[0] > shared or by_names[2]):
            return by_names[1]
        return _with_names(images, labels, frames, masks)
    if frames and (flat := _in_names(frames, masks)):
        return flat
    if masks:
        return None if by_names is None else by_names[1]
    alone = max(families(places), key=lambda one: (len(one.names), one.parts.index("")), default=None)
    if alone is None:
        return None
    if frames:
        return Guess(alone.pattern())
    endings = [PurePosixPath(name).suffix for name in alone.names]
    ending = max(sorted(set(endings)), key=endings.count)
    return Guess(alone.pattern(after=ending) if alone.parts[-1] == "" else alone.pattern())


def guess_by_names(frames: Sequence[Stream], masks: Sequence[Stream]) -> Guess | None:
    """Returns patterns for the one folder of frames and that of masks that share most names, if there are such."""
    found = _by_shared_names(frames, masks)
    return None if found is None else found[1]


def guess_in_folders(guess: Guess, frames: Sequence[Stream], masks: Sequence[Stream]) -> Guess | None:
    """Returns patterns for folders, of splits or places, that hold several sequences each, or photographs.

    Args:
        guess: patterns under which each of these folders is a sequence.
        frames: streams of frames.
        masks: streams of masks.
    """
    if FRAME in guess.images:
        return None
    patterns = []
    sides = [(guess.images, frames, "")]
    if guess.masks is not None:
        sides.append((guess.masks, masks, guess.mask_suffix or ""))
    for folder, streams, tail in sides:
        stems = [path.stem.removesuffix(tail) for stream in streams for path in stream.files]
        if len(set(stems)) < len(stems):
            return None
        matches = [_IN_NAME.fullmatch(stem) for stem in stems]
        between = {match[2] for match in matches if match}
        name = f"{CLIP}{between.pop()}{FRAME}" if all(matches) and len(between) == 1 else CLIP
        patterns.append(f"{folder.replace(CLIP, '*')}/{name}{tail}.*")
    return Guess(*patterns) if len({FRAME in pattern for pattern in patterns}) == 1 else None


def widened(raw: Path, guess: Guess) -> Guess:
    """Returns patterns with `*` for a folder that others with masks lie beside, e.g. `train` beside `val`.

    Args:
        raw: the folder of the data.
        guess: patterns that spell one of them out, for frames and masks alike.

    Returns:
        The patterns; as they were where there is nothing to add.
    """
    ours, theirs = fixed_folder(guess.images).split("/"), fixed_folder(guess.masks or "").split("/")
    for place, part in enumerate(ours):
        if not part or part not in theirs:
            continue
        wide, count, paired = _with_part(guess, part, "*"), 0, 0
        names: set[str] = set()
        try:
            for other in sorted(path.name for path in raw.joinpath(*ours[:place]).iterdir() if path.is_dir()):
                narrow = _with_part(guess, part, other)
                images = find_sequences(raw, narrow.images)
                names |= images.keys()
                count += len(images)
                paired += bool(images.keys() & find_sequences(raw, str(narrow.masks)).keys())
            find_sequences(raw, str(wide.masks))
        except MaskcastError:  # two are of one name
            continue
        if paired > 1 and count == len(names):
            return wide
    return guess


def _with_part(guess: Guess, part: str, other: str) -> Guess:
    """Returns patterns with another folder in the place of one."""
    images, masks = (
        "/".join(other if one == part else one for one in pattern.split("/"))
        for pattern in (guess.images, str(guess.masks))
    )
    return replace(guess, images=images, masks=masks)


def _any_ending(videos: Sequence[Parts]) -> list[Parts]:
    """Returns the places of videos; `*` stands for endings that differ, unless two differ in nothing else."""
    endings = {PurePosixPath(parts[-1]).suffix for parts in videos}
    places = [(*parts[:-1], f"{PurePosixPath(parts[-1]).stem}.*") for parts in videos]
    return places if len(endings) > 1 and len(set(places)) == len(places) else list(videos)


def _keys(streams: Iterable[Stream]) -> dict[Parts, set[NameKey]]:
    """Returns the names in each folder."""
    found: dict[Parts, set[NameKey]] = defaultdict(set)
    for stream in streams:
        found[stream.parts] |= stream.keys()
    return found


def _paired(
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
                rank = (count, *alike, shared, there, _called_frames(images.parts))
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
            if core and theirs.startswith(core + cut[0]):
                other = theirs.removeprefix(core)
                cores = [name.removesuffix(tail) for name in images if name.endswith(tail)]
                count = sum(f"{one}{other}" in labels for one in cores)
                if count > 1 or not _DIGIT.search(tail + other):  # `take_1` and `take_2` are two
                    yield count, ("", tail), ("", other)
            head, core = ours[: cut.end()], ours[cut.end() :]
            if core and theirs.endswith(cut[0] + core):
                other = theirs.removesuffix(core)
                cores = [name.removeprefix(head) for name in images if name.startswith(head)]
                count = sum(f"{other}{one}" in labels for one in cores)
                if count > 1 or not _DIGIT.search(head + other):
                    yield count, (head, ""), (other, "")


def _with_names(images: str, labels: str, frames: Sequence[Stream], masks: Sequence[Stream]) -> Guess:
    """Adds what the names of files have beside their numbers, where frames and masks differ in it alone."""
    ours = _most([stream.tail for stream in frames]) if frames else ""
    theirs = _most([stream.tail for stream in masks])
    if not frames or (ours == theirs and images != labels):
        return Guess(images, labels)
    if theirs and not ours:
        return Guess(images, labels, theirs)
    endings = [_most([stream.files[0].suffix for stream in streams]) for streams in (frames, masks)]
    return Guess(f"{images}/{FRAME}{ours}{endings[0]}", f"{labels}/{FRAME}{theirs}{endings[1]}")


def _in_names(frames: Sequence[Stream], masks: Sequence[Stream]) -> Guess | None:
    """Returns patterns for one flat folder, whose files carry the sequence in their names, or are one sequence."""
    if len(frames) != 1 or len(masks) > 1:
        return None
    names = []
    for stream in (*frames, *masks):
        stems = [path.stem.removesuffix(stream.tail) for path in stream.files]
        matches = [_IN_NAME.fullmatch(stem) for stem in stems]
        between = {match[2] for match in matches if match}
        name = f"{CLIP}{between.pop()}{FRAME}" if all(matches) and len(between) == 1 else FRAME
        names.append("/".join((*stream.parts, f"{name}{stream.tail}{_most([p.suffix for p in stream.files])}")))
    if len({CLIP in name for name in names}) > 1:
        return None
    return Guess(names[0], names[1] if masks else None)


def _by_shared_names(frames: Sequence[Stream], masks: Sequence[Stream]) -> tuple[int, Guess, bool] | None:
    """Returns how many names the folder of frames and that of masks share that share most, and their patterns.

    Beside these, whether the names are of several sequences.

    None where the names of masks fit two folders of frames equally well, and these are as near, or half of the
    masks have no frame. Of several folders of masks that fit, the first counts.
    """
    if not masks or len(frames) * len(masks) > MOST_PAIRS:  # of many folders none holds most of the frames
        return None
    shared = []
    names = [(other, other.keys()) for other in masks]
    for one in frames:
        ours, fits = one.keys(), []
        for other, theirs in names:
            both, near = len(ours & theirs), sum(map(eq, one.parts, other.parts))  # names, folders
            fits.append((both if 2 * both >= len(theirs) else 0, near, other))
        count, near, labels = max(fits, key=itemgetter(0, 1))
        shared.append(((count, count / len(ours), near, _called_frames(one.parts)), one, labels))
    ranks = [rank for rank, _, _ in shared]
    if not shared or max(ranks)[0] == 0 or ranks.count(max(ranks)) > 1:
        return None
    (count, *_), images, labels = shared[ranks.index(max(ranks))]
    guess = _in_names([images], [labels])
    several = guess is not None and CLIP in guess.images and len(_sequences_in_names(images)) > 1
    return None if guess is None else (count, guess, several)


def _sequences_in_names(stream: Stream) -> set[str]:
    matches = (_IN_NAME.fullmatch(path.stem.removesuffix(stream.tail)) for path in stream.files)
    return {match[1] for match in matches if match}


def _called_frames(parts: Parts) -> bool:
    return any(map(_FRAMES.fullmatch, parts))


def _most(values: Sequence[str]) -> str:
    return max(sorted(set(values)), key=values.count)
