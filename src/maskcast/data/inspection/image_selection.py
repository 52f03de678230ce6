"""Recognises images that are made from others: depth, overlays, cut-outs, selections of a video's frames."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import permutations, takewhile
from pathlib import Path, PurePosixPath

import numpy as np

from maskcast.data.decoding import decode
from maskcast.data.frame_names import NameKey, name_key
from maskcast.data.images import read_image
from maskcast.data.inspection.families import open_at
from maskcast.data.inspection.flat_images import SAME_COLOUR, flat_colours, have_texture
from maskcast.data.inspection.image_groups import ImageGroup, kind_words
from maskcast.data.inspection.split_lists import split_of_name
from maskcast.errors import MaskcastError

# Pictures of frames overlaid with their masks, e.g. from labelme's scripts.
VISUALISATION = re.compile(r".*Visuali[sz]ations?|overlays?|overlaid|vis|viz|blend(ed)?|masked", re.IGNORECASE)
# Images derived from frames, stored beside them: neither frames to learn from, nor masks, though some look like
# masks.
DERIVED = re.compile(
    r"(([a-z]+[_-])?(depth|disp(arity)?)|thumb(nail)?s?|previews?|super[_-]?pixels?"
    r"|((optical|opt|scene|forward|fwd?|backward|bwd?)[_-]?)?flows?)"
    r"([_-]?(maps?|images?|imgs?|pngs?|jpgs?|vis|small|fwd?|bwd?|forward|backward|left|right|raw|align(ed)?|gr[ae]y"
    r"|(occ|noc)([_-]\d)?))*",
    re.IGNORECASE,
)

SUBSET_RATIO = 10  # a folder with at most 1/SUBSET_RATIO of a video's frames is a selection of them, not a video
MAX_KINDS = 8  # folders that differ in one part of their path: more than this are sequences, not kinds of images


def is_visualisation(group: ImageGroup) -> bool:
    """Whether images are pictures of frames and masks for people."""
    return any(map(VISUALISATION.fullmatch, group.parts))


def derived_images(groups: Sequence[ImageGroup], has_videos: bool) -> dict[ImageGroup, str]:
    """Returns derived images, such as depth, flow or thumbnails, with the word in their path that says so.

    They are derived only if videos, or frames with the same names, exist as well. If several folders have such a
    name, their frames may have names that differ in a word: `rgb_1`, `depth_1`. A sequence with such a name has
    masks elsewhere.

    Args:
        groups: all groups.
        has_videos: whether there are videos.
    """
    named = {
        one: word
        for one in groups
        for word in (*one.parts, *(text.strip("_-. ") for text in (one.name_suffix, one.name_word)))
        if DERIVED.fullmatch(word)
    }
    frames = [one for one in groups if one not in named and not one.are_masks]
    known = set().union(*(one.keys() for one in frames))
    without_word = {name for one in frames for path in one.files for name in _names(one, path)} if named else set()
    kinds, places = defaultdict[str, set[bool]](set), Counter(named.values())
    for one, word in named.items():
        kinds[word].add(one.are_masks)

    def have_frames(one: ImageGroup) -> bool:
        if places[named[one]] == 1:
            return 2 * len(one.keys() & known) >= len(one.files)
        return 2 * sum(not without_word.isdisjoint(_names(one, path)) for path in one.files) >= len(one.files)

    return {
        one: word
        for one, word in named.items()
        if len(kinds[word]) == 1 and (have_frames(one) or (has_videos and not frames))
    }


def _names(group: ImageGroup, path: Path) -> Iterator[NameKey]:
    """Yields the frame keys of a file: with all words of its name, and without one."""
    return (name_key(core) for _, core in kind_words(group.core(path)))


def frames_shown_by(
    group: ImageGroup, frames: Sequence[ImageGroup], masks: Sequence[ImageGroup]
) -> ImageGroup | None:
    """Returns the frames with the names of images that are called masks but have too many colours, or None.

    Frames in a folder with masks of their own are not those of others: `labelled/images` does not match
    `all/images`.
    """
    if not group.named_as_masks:
        return None
    names, nearest = group.keys(), max((_shared_depth(group, one) for one in masks), default=0)
    return next(
        (
            one
            for one in frames
            if not one.named_as_masks
            and names <= one.keys()
            and not (nearest > _shared_depth(group, one) and {*group.parts} & {*one.parts})
        ),
        None,
    )


def flat_pictures(
    frames: Sequence[ImageGroup], videos: Sequence[tuple[str, ...]]
) -> dict[ImageGroup, tuple[str, bool]]:
    """Returns pictures of masks among frames: of few flat colours, with the names of photographs or of a video.

    With each comes the path of these photographs or this video, and whether the pictures are grey.

    Args:
        frames: groups of frames.
        videos: paths of videos.
    """
    flat = lru_cache(lambda group: flat_colours(group.files))
    found = {}
    stems = {PurePosixPath(video[-1]).stem: "/".join(video) for video in videos}
    of_videos = [(one, stems[one.parts[-1]]) for one in frames if one.parts and one.parts[-1] in stems]
    of_frames = [
        (one, other.folder)
        for one, other in parallel_pairs(frames, 0)
        if one.keys() <= other.keys() and not _is_split(one, other) and flat(one) and have_texture(other.files)
    ]
    for one, place in (*of_videos, *of_frames):
        if colours := flat(one):
            found[one] = place, all(len({*colour.tolist()}) == 1 for colour in colours)
    return found


def _is_split(one: ImageGroup, other: ImageGroup) -> bool:
    """Whether folders differ by the names of splits, `train` and `val`, and so not in the kind of image."""
    return any(
        ours != theirs and split_of_name(ours) is not None and split_of_name(theirs) is not None
        for ours, theirs in zip(one.parts, other.parts, strict=True)
    )


def video_subsets(frames: Sequence[ImageGroup]) -> dict[ImageGroup, ImageGroup]:
    """Returns images that are a selection of the frames of a video in a parallel folder, with that video's images.

    Cityscapes has one of thirty frames in `leftImg8bit/train/ulm`, and all in `leftImg8bit_sequence/train/ulm`.
    """
    return {
        one: other
        for one, other in parallel_pairs(frames, 1)
        if SUBSET_RATIO * len(one.files) <= len(other.files) and _contains(other, one)
    }


def cut_outs(frames: Sequence[ImageGroup]) -> dict[ImageGroup, ImageGroup]:
    """Returns images whose alpha channel cuts something out of the frames in a parallel folder, with these frames.

    Read as frames they would lose alpha, and show whatever a tool left where it is 0.
    """
    return {
        one: other
        for one, other in parallel_pairs(frames, 0)
        if one.keys() <= other.keys() and _is_cut_from(one, other)
    }


def parallel_pairs(groups: Sequence[ImageGroup], deepest: int) -> Iterator[tuple[ImageGroup, ImageGroup]]:
    """Yields pairs of groups whose folders differ in one part of their paths.

    Args:
        groups: the groups.
        deepest: how many parts at the end of a path must not differ.
    """
    parallel = defaultdict[tuple[str, ...], list[ImageGroup]](list)
    for one in groups:
        for place in range(len(one.parts) - deepest):
            parallel[open_at(one.parts, place)].append(one)
    for kinds in parallel.values():
        if len(kinds) <= MAX_KINDS:
            yield from permutations(kinds, 2)


def _is_cut_from(group: ImageGroup, frames: ImageGroup) -> bool:
    """Whether a group's first image has an alpha channel that varies, and its frame's colours where opaque."""
    name, path = next(iter(group.by_key().items()))
    with suppress(MaskcastError):
        alpha_HW, frame_path = decode(path).alpha(), frames.by_key()[name]
        if alpha_HW is None or "A" in decode(frame_path).image.getbands():
            return False
        opaque_HW = alpha_HW == alpha_HW.max()
        ours, theirs = read_image(path), read_image(frame_path)
        if ours.shape == theirs.shape and opaque_HW.shape == ours.shape[:2]:
            difference = np.abs(ours[opaque_HW].astype(int) - theirs[opaque_HW])
            return float(np.median(difference)) < SAME_COLOUR
    return False


def _contains(group: ImageGroup, few: ImageGroup) -> bool:
    """Whether a group has all names of a smaller one, and the same picture for the first of them."""
    ours, theirs = group.by_key(), few.by_key()
    if not theirs.keys() <= ours.keys():
        return False
    name = next(iter(theirs))
    with suppress(MaskcastError):
        return np.array_equal(read_image(ours[name]), read_image(theirs[name]))
    return False


def _shared_depth(one: ImageGroup, other: ImageGroup) -> int:
    """Returns the number of top folders that both paths share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.parts, other.parts, strict=False)))
