"""Widens patterns of one folder to all similar folders: of splits, of places, of several sequences each."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.images import read_image
from maskcast.data.inspection.families import open_at
from maskcast.data.inspection.guess_patterns import SEQUENCE_AND_FRAME, Guess
from maskcast.data.inspection.image_groups import ImageGroup
from maskcast.data.inspection.label_patterns import across_splits, widened, wider_patterns, with_folders
from maskcast.data.inspection.photographs import STATIC, difference, thumbnail
from maskcast.data.inspection.split_lists import split_of_name
from maskcast.data.sources.patterns import CLIP, FRAME, SequencePaths, all_paths, find_sequences, fixed_folder
from maskcast.data.video_files.frames import read_video
from maskcast.errors import MaskcastError

MAX_COMPARED = 8  # pairs of sequences whose first frames are compared


def guess_in_folders(guess: Guess, frames: Sequence[ImageGroup], masks: Sequence[ImageGroup]) -> Guess | None:
    """Returns patterns for folders (of splits or places) with several sequences or photographs each, or None.

    Args:
        guess: patterns in which each of these folders is a sequence.
        frames: groups of frames.
        masks: groups of masks.
    """
    if FRAME in guess.images:
        return None
    patterns = []
    sides = [(guess.images, frames, masks, "")]
    if guess.masks is not None:
        sides.append((guess.masks, masks, frames, guess.mask_suffix or ""))
    for pattern, groups, others, tail in sides:
        folders = pattern.replace(CLIP, "*")
        ending = _distinct_suffix(groups, [one for one in others if _is_in(one, folders)])
        places = [(path.stem.removesuffix(tail), one.parts) for one in groups for path in one.files]
        stems = [stem for stem, _ in places]
        if ending is None or len(set(stems)) < len(stems):
            return None
        matches = [SEQUENCE_AND_FRAME.fullmatch(stem) for stem in stems]
        owners = {(match[1], parts) for match, (_, parts) in zip(matches, places, strict=True) if match}
        if all(matches) and len({name for name, _ in owners}) < len(owners):
            return None  # a sequence has frames in two folders
        between = {match[2] for match in matches if match}
        name = f"{CLIP}{between.pop()}{FRAME}" if all(matches) and len(between) == 1 else CLIP
        patterns.append(f"{folders}/{name}{tail}{ending}")
    return Guess(*patterns) if len({FRAME in pattern for pattern in patterns}) == 1 else None


def guess_in_frames(raw: Path, guess: Guess) -> Guess | None:
    """Returns patterns for sequences with a numbered folder per frame, `street/0001/rgb.png`, or None.

    Args:
        raw: folder of the data.
        guess: patterns for a single sequence, in which each of these folders is a sequence.
    """
    street = PurePosixPath(guess.images.partition(f"/{CLIP}/")[0]).name
    masks = str(guess.masks)
    if not street or split_of_name(street) or FRAME in guess.images + masks or f"{street}/{CLIP}/" not in masks:
        return None
    images, masks = (pattern.replace(f"{street}/{CLIP}/", f"{CLIP}/{FRAME}/") for pattern in (guess.images, masks))
    found = find_sequences(raw, images).values()
    numbered = all(all(map(str.isdecimal, files.frames)) for files in found)
    return replace(guess, images=images, masks=masks) if len(found) > 1 and numbered else None


def _is_in(group: ImageGroup, folders: str) -> bool:
    """Whether a pattern without placeholders matches the folder of a group."""
    return len(group.parts) == len(PurePosixPath(folders).parts) and PurePosixPath(*group.parts).match(folders)


def _distinct_suffix(groups: Sequence[ImageGroup], others: Sequence[ImageGroup]) -> str | None:
    """Returns the ending that tells images from others in their folders, `.*` without others, or None."""
    if not others:
        return ".*"
    ours, theirs = ({path.suffix.lower() for one in each for path in one.files} for each in (groups, others))
    return None if len(ours) > 1 or ours & theirs else ours.pop()


def widen(raw: Path, guess: Guess) -> Guess:
    """Returns patterns with `*` for a folder, e.g. `val`, that has others with masks or split names beside it.

    Args:
        raw: folder of the data.
        guess: patterns with that folder's name, either for both frames and masks, or as a split for one of them.

    Returns:
        The patterns, unchanged if no folder is added.
    """
    ours, theirs = fixed_folder(guess.images).split("/"), fixed_folder(guess.masks or "").split("/")
    for place, part in enumerate(ours):
        if not part or part not in theirs:
            continue
        wide, count, paired, splits = _with_part(guess, part, "*"), 0, 0, 0
        names: set[str] = set()
        try:
            for other in sorted(path.name for path in raw.joinpath(*ours[:place]).iterdir() if path.is_dir()):
                narrow = _with_part(guess, part, other)
                images = find_sequences(raw, narrow.images)
                names |= images.keys()
                count += len(images)
                paired += bool(images.keys() & find_sequences(raw, str(narrow.masks)).keys())
                splits += bool(images) and split_of_name(other) is not None
            find_sequences(raw, str(wide.masks))
        except MaskcastError:  # two files would have the same name
            continue
        if max(paired, splits) > 1 and count == len(names):
            return wide
    of_frames, of_masks = (across_splits(raw, pattern) for pattern in (guess.images, str(guess.masks)))
    alone = [one for one in (replace(guess, masks=of_masks), replace(guess, images=of_frames)) if one != guess]
    return max((guess, *alone), key=lambda one: _num_paired(raw, one)) if alone else guess


def widen_levels(raw: Path, guess: Guess, known: set[Path]) -> Guess:
    """Returns patterns for folders on several levels, such as those of cameras in those of scenes.

    A folder of both patterns, e.g. `camera`, is widened to those beside it if their sequences are others: `{clip}`
    then also stands for these folders. Folders of copies, `480p` beside `1080p`, are not.

    Args:
        raw: folder of the data.
        guess: patterns of frames and masks.
        known: the files that are frames, and their folders.
    """
    for part in dict.fromkeys(reversed(guess.images.split("/")[:-1])):
        ours, theirs = (
            [place for place, one in enumerate(pattern.split("/")) if one == part]
            for pattern in (guess.images, str(guess.masks))
        )
        if {*"{*"} & {*part} or CLIP not in guess.images or len(ours) != 1 or len(theirs) != 1:
            continue
        with suppress(MaskcastError):
            images, wide = widened(raw, guess.images, ours)
            if images.count(CLIP) == guess.images.count(CLIP) and part in fixed_folder(guess.images).split("/"):
                continue  # `widen` decides on these
            masks = with_folders(str(guess.masks), theirs, images.split("/")[ours[0]])
            find_sequences(raw, masks)  # fails where two masks would have the same name
            more = len(wide) > len(find_sequences(raw, guess.images))
            if more and known.issuperset(all_paths(wide)) and not _has_copies(wide):
                guess = replace(guess, images=images, masks=masks)
    return guess


def _has_copies(found: Mapping[str, SequencePaths]) -> bool:
    """Whether sequences whose names differ in one folder begin with the same picture, mostly."""
    alike = defaultdict[tuple[str, ...], list[str]](list)
    for name in found:
        parts = name.split("/")
        for place in range(len(parts) if len(parts) > 1 else 0):
            alike[open_at(parts, place)].append(name)
    pairs = [names[:2] for names in alike.values() if len(names) > 1]
    same = []
    for number in evenly_spaced(len(pairs), MAX_COMPARED):
        with suppress(MaskcastError):  # reported where the frames are read
            one, other = (thumbnail(_first_frame(found[name])) for name in pairs[number])
            same.append(difference(one, other) < STATIC)
    return 2 * sum(same) > len(same)


def _first_frame(files: SequencePaths) -> np.ndarray:
    """Returns the first frame of a sequence (H, W, 3) uint8."""
    return read_image(files.images[0]) if files.video is None else read_video(files.video, [0])[0]


def widen_frames(raw: Path, guess: Guess, known: set[Path]) -> Guess:
    """Returns the pattern of frames, without masks, that finds most sequences, all of them known.

    Args:
        raw: folder of the data.
        guess: a pattern of frames.
        known: the files that are frames, and their folders.
    """
    found = find_sequences(raw, guess.images)
    for images in wider_patterns(raw, guess.images):
        more = find_sequences(raw, images)
        if len(more) > len(found) and known.issuperset(all_paths(more)) and not _has_copies(more):
            guess, found = replace(guess, images=images), more
    return guess


def _num_paired(raw: Path, guess: Guess) -> int:
    """Returns the number of sequences with masks."""
    return len(find_sequences(raw, guess.images).keys() & find_sequences(raw, str(guess.masks)).keys())


def _with_part(guess: Guess, part: str, other: str) -> Guess:
    """Returns patterns with one folder replaced by another."""
    images, masks = (
        "/".join(other if one == part else one for one in pattern.split("/"))
        for pattern in (guess.images, str(guess.masks))
    )
    return replace(guess, images=images, masks=masks)
