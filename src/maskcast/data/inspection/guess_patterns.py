"""Guesses the patterns of `frame_folders` for frames and masks."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from operator import eq, itemgetter
from pathlib import PurePosixPath
from typing import TypeVar

from maskcast.data.frame_names import NameKey
from maskcast.data.inspection.families import (
    Family,
    Parts,
    families,
    is_named_as_frames,
    paired_families,
    rank_as_class_masks,
)
from maskcast.data.inspection.image_groups import ImageGroup, kind_words
from maskcast.data.sources.patterns import CLIP, FRAME
from maskcast.data.video_files.frames import VIDEO_SUFFIXES

MAX_PAIRS = 2500  # maximum number of pairs of folders of frames and masks whose names are compared
Texts = TypeVar("Texts", str, tuple[str, str])
# sequence and frame in one file name; a number before a dot is a time in seconds; Windows numbers `walk (1)`
SEQUENCE_AND_FRAME = re.compile(r"(?!\d+\.)(.+)([_-]|\.(?=\d)| \()([A-Za-z]?\d+)")


@dataclass(frozen=True)
class Guess:
    """Patterns of frames and masks; ``masks`` is None without masks."""

    images: str
    masks: str | None = None
    mask_suffix: str | None = None


def guess_patterns(
    frames: Sequence[ImageGroup], videos: Sequence[Parts], masks: Sequence[ImageGroup]
) -> Guess | None:
    """Returns the patterns that pair most sequences; None if nothing looks like sequences.

    Args:
        frames: groups of frames; preferred to videos.
        videos: paths of videos.
        masks: groups of masks.
    """
    places = [group.parts for group in frames] or _with_any_suffix(videos)
    if len(frames) == len(masks) == 1 and frames[0].parts != masks[0].parts:
        flat = _guess_flat(frames, masks)
        if flat and CLIP in flat.images and len(_sequences_in_names(frames[0])) > 1:
            return flat
    by_names = _guess_shared_names(frames, masks)
    if masks and (found := paired_families(places, _keys(frames), _keys(masks))):
        images, labels, shared = found
        if by_names is not None and by_names[0] >= shared and (by_names[0] > shared or by_names[2]):
            flat = by_names[1]
            if not (_is_sibling(flat.images, images) and _is_sibling(str(flat.masks), labels)):
                return flat
        return _with_file_names(images, labels, frames, masks)
    if frames and (flat := _guess_flat(frames, masks)):
        return flat
    if masks and videos and not frames and (flat := _guess_masks_of_videos(videos, masks)):
        return flat
    if masks:
        return None if by_names is None else by_names[1]
    alone = max(families(places), key=lambda one: (len(one.names), one.parts.index("")), default=None)
    if alone is None:
        return None
    return Guess(alone.pattern() if frames else _video_pattern(alone))


def _video_pattern(alone: Family) -> str:
    ending = _most_common([PurePosixPath(name).suffix for name in alone.names])
    return alone.pattern(after=ending) if alone.parts[-1] == "" else alone.pattern()


def _guess_masks_of_videos(videos: Sequence[Parts], masks: Sequence[ImageGroup]) -> Guess | None:
    """Returns patterns for videos of one folder and masks of another, `street_0019`, or None."""
    alone = max(families(_with_any_suffix(videos)), key=lambda one: len(one.names))
    if len(masks) > 1 or alone.parts[-1]:
        return None
    stems = [path.stem.removesuffix(masks[0].name_suffix) for path in masks[0].files]
    names = sorted((PurePosixPath(parts[-1]).stem for parts in videos), key=len, reverse=True)
    found = {
        next((match[1] for name in names if (match := re.fullmatch(f"{re.escape(name)}(\\D+)\\d+", stem))), None)
        for stem in stems
    }
    between = found.pop()
    if found or between is None:
        return None
    name = f"{CLIP}{between}{FRAME}{masks[0].name_suffix}{_ending(masks, [])}"
    return Guess(_video_pattern(alone), "/".join((*masks[0].parts, name)))


def guess_by_names(frames: Sequence[ImageGroup], masks: Sequence[ImageGroup]) -> Guess | None:
    """Returns patterns for the folder of frames and the folder of masks that share most names, or None."""
    found = _guess_shared_names(frames, masks)
    return None if found is None else found[1]


def _is_sibling(pattern: str, family: str) -> bool:
    """Whether the pattern's folder is outside the family but differs from it in one part only, e.g. the split."""
    folder, parts = PurePosixPath(pattern).parts[:-1], PurePosixPath(family).parts
    return len(folder) == len(parts) and sum(CLIP not in part for part in parts if part not in folder) == 1


def _with_any_suffix(videos: Sequence[Parts]) -> list[Parts]:
    """Returns the paths of videos with `*` for endings that differ, unless two paths would become equal."""
    endings = {PurePosixPath(parts[-1]).suffix for parts in videos}
    places = [(*parts[:-1], f"{PurePosixPath(parts[-1]).stem}.*") for parts in videos]
    return places if len(endings) > 1 and len(set(places)) == len(places) else list(videos)


def _keys(groups: Iterable[ImageGroup]) -> dict[Parts, set[NameKey]]:
    """Returns the frame names in each folder."""
    found: dict[Parts, set[NameKey]] = defaultdict(set)
    for group in groups:
        found[group.parts] |= group.keys()
    return found


def _with_file_names(images: str, labels: str, frames: Sequence[ImageGroup], masks: Sequence[ImageGroup]) -> Guess:
    """Completes patterns with the texts beside the numbers in file names, if frames and masks differ in these."""
    frames, masks = (
        [group for group in groups if _is_at(group, pattern)] or groups
        for groups, pattern in ((frames, images), (masks, labels))
    )
    ours = _most_common([_around(group) for group in frames]) if frames else ("", "")
    around = [_around(group) for group in masks]
    theirs = max(sorted({*around}), key=lambda texts: (around.count(texts), rank_as_class_masks(texts)))
    if not frames or (ours == theirs and images != labels):
        return Guess(images, labels)
    if theirs[1] and (*ours, theirs[0]) == ("", "", ""):
        return Guess(images, labels, theirs[1])
    endings = [_ending(groups, others) for groups, others in ((frames, masks), (masks, frames))]
    single = all(path.stem == ours[1] for group in frames for path in group.files)  # image.png in a folder each
    frame = "" if single else FRAME
    return Guess(
        *(
            f"{folder}/{word}{frame}{tail}{ending}"
            for folder, (word, tail), ending in zip((images, labels), (ours, theirs), endings, strict=True)
        )
    )


def _around(group: ImageGroup) -> tuple[str, str]:
    """Returns the texts around the cores of names, that tell the kind of file."""
    return group.name_word, group.name_suffix


def _is_at(group: ImageGroup, pattern: str) -> bool:
    """Whether the folder of a group is one of a pattern of folders."""
    parts = pattern.split("/")
    return len(parts) == len(group.parts) and all(
        re.fullmatch(".+".join(map(re.escape, part.split(CLIP))), own)
        for part, own in zip(parts, group.parts, strict=True)
    )


def _guess_flat(frames: Sequence[ImageGroup], masks: Sequence[ImageGroup]) -> Guess | None:
    """Returns patterns for one flat folder, whose file names contain the sequence, or which is one sequence."""
    if len(frames) != 1 or len(masks) > 1:
        return None
    if masks:
        frames, masks = ([one] for one in _with_words(frames[0], masks[0]))
    names, forms = [], []
    for group in (*frames, *masks):
        stems = [group.core(path) for path in group.files]
        found = {match and (match[1], match[2]) for match in map(SEQUENCE_AND_FRAME.fullmatch, stems)}
        several = None in found or len({between for _, between in filter(None, found)}) > 1
        forms.append(set() if several else set(filter(None, found)))
    words = len(forms) > 1 and forms[0] != forms[1] and max(map(len, forms)) == 1  # frame_0001.jpg, mask_0001.png
    for group, form in zip((*frames, *masks), forms, strict=True):
        others = [one for one in (*frames, *masks) if one is not group]
        clip, between = next(iter(form), ("", ""))
        name = f"{clip if words else CLIP}{between}{FRAME}" if form else FRAME
        names.append("/".join((*group.parts, f"{group.file_pattern(name)}{_ending([group], others)}")))
    if len({CLIP in name for name in names}) > 1:
        return None
    return Guess(names[0], names[1] if masks else None)


def _with_words(frames: ImageGroup, masks: ImageGroup) -> tuple[ImageGroup, ImageGroup]:
    """Returns groups of two folders with the words without which names of several sequences are shared.

    These are `frame_` of `s0_frame_0019`, and `mask_` of `s0_mask_0019`.
    """
    if frames.keys() & masks.keys() or len(_sequences_in_names(masks)) < 2:
        return frames, masks
    for ours, theirs in product(*map(_with_word, (frames, masks))):
        if 2 * len(ours.keys() & theirs.keys()) >= len(masks.files):
            return ours, theirs
    return frames, masks


def _with_word(group: ImageGroup) -> list[ImageGroup]:
    """Returns a group with each word that may tell the kind of file in all of its names, first with none."""
    stems = [path.stem.removesuffix(group.name_suffix) for path in group.files]
    common = set.intersection(*({word for word, _ in kind_words(stem)} for stem in stems))
    return [replace(group, name_word=word) for word in sorted(common)]


def _guess_shared_names(
    frames: Sequence[ImageGroup], masks: Sequence[ImageGroup]
) -> tuple[int, Guess, bool] | None:
    """Finds the folder of frames and the folder of masks that share most names.

    Returns:
        The number of shared names, the patterns, and whether the names are of several sequences. None if two
        folders of frames fit equally well and are equally near, or half of the masks have no frame. If several
        folders of masks fit, the first is used.
    """
    if not masks or len(frames) * len(masks) > MAX_PAIRS:  # among many folders, none holds most of the frames
        return None
    shared = []
    names = [(other, other.keys()) for other in masks]
    for one in frames:
        ours, fits = one.keys(), []
        for other, theirs in names:
            both, near = len(ours & theirs), sum(map(eq, one.parts, other.parts))  # shared names, shared folders
            named = rank_as_class_masks((*other.parts, other.name_suffix, other.name_word))
            fits.append((both if 2 * both >= len(theirs) else 0, near, named, other))
        count, near, _, labels = max(fits, key=itemgetter(0, 1, 2))
        shared.append(((count, count / len(ours), near, is_named_as_frames(one.parts)), one, labels))
    ranks = [rank for rank, _, _ in shared]
    if not shared or max(ranks)[0] == 0 or ranks.count(max(ranks)) > 1:
        return None
    (count, *_), images, labels = shared[ranks.index(max(ranks))]
    guess = _guess_flat([images], [labels])
    several = guess is not None and CLIP in guess.images and len(_sequences_in_names(images)) > 1
    return None if guess is None else (count, guess, several)


def _sequences_in_names(group: ImageGroup) -> set[str]:
    matches = (SEQUENCE_AND_FRAME.fullmatch(group.core(path)) for path in group.files)
    return {match[1] for match in matches if match}


def _ending(groups: Sequence[ImageGroup], others: Sequence[ImageGroup]) -> str:
    """Returns the ending of the images of a pattern: `.*` if it differs, and all names without it.

    With `.*` a pattern also finds what else is in these folders, so these must have no ``others`` and no videos.
    """
    paths = [path for group in groups for path in group.files]
    folders = {path.parent for path in paths}
    alone = not any(group.files[0].parent in folders for group in others)
    if (
        alone
        and len({path.suffix.lower() for path in paths}) > 1
        and len({path.with_suffix("") for path in paths}) == len(paths)
        and not any(path.suffix.lower() in VIDEO_SUFFIXES for folder in folders for path in folder.iterdir())
    ):
        return ".*"
    return _most_common([path.suffix for path in paths])


def _most_common(values: Sequence[Texts]) -> Texts:
    return max(sorted(set(values)), key=values.count)
