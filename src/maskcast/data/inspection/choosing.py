"""Chooses which images to read if several show the same frames: class masks rather than pictures for people."""

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import permutations, product, takewhile
from operator import ne

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.images import read_image
from maskcast.data.inspection.streams import MASK_WORDS, Stream
from maskcast.data.masks.stored import read_mask
from maskcast.errors import MaskcastError

# Folders of instances or marks, each with the folder of class masks of the same frames, as tools write them.
# frames.
BESIDE = (
    ("SegmentationObject", "SegmentationClass"),  # Pascal VOC, CVAT
    ("SegmentationObjectPNG", "SegmentationClassPNG"),  # labelme
    ("instances", "labels"),  # Mapillary Vistas
    ("panoptic", "labels"),
    ("TRA", "SEG"),  # Cell Tracking Challenge
    ("instance", "semantic"),  # KITTI
    ("colormaps", "masks"),  # BDD100K
    ("colormaps", "bitmasks"),
)
# Coloured versions for people: `colored_masks` beside `masks`, VIPSeg's `panomasksRGB`, KITTI's `semantic_rgb`.
COLOURED = re.compile(r"[_-]?(colou?r(ed|s|maps?|i[sz]ed)?|rgb)[_-]?", re.IGNORECASE)
FINE, COARSE = "gtFine", "gtCoarse"  # Cityscapes' fine and coarse annotations
IDS = ("_labelIds", "_labelTrainIds", "_instanceIds")  # Cityscapes' masks, the most useful first
# Pictures of frames overlaid with their masks, e.g. from labelme's scripts.
FOR_PEOPLE = re.compile(r".*Visuali[sz]ations?|overlays?|overlaid|vis|viz|blend(ed)?|masked", re.IGNORECASE)
# Images derived from frames, stored beside them: neither frames to learn from, nor masks, though some look like
# masks.
MADE = re.compile(
    r"(depth|disparity|thumb(nail)?s?|previews?|super[_-]?pixels?|(optical[_-]?|opt[_-]?)?flows?)"
    r"([_-]?(maps?|images?|imgs?|pngs?|jpgs?|vis|small|fwd?|bwd?|forward|backward))?",
    re.IGNORECASE,
)

FEW = 10  # a folder with at most 1/FEW of a video's frames is a selection of them, not a video
MOST_KINDS = 8  # folders that differ in one part of their path: more than this are sequences, not kinds of images
LOOKED_AT = 12  # folders of masks, and frames of each, that are compared


def for_people(stream: Stream) -> bool:
    """Whether images are pictures of frames and masks for people."""
    return any(map(FOR_PEOPLE.fullmatch, stream.parts))


def made_of_frames(streams: Sequence[Stream], films: bool) -> dict[Stream, str]:
    """Returns derived images, such as depth, flow or thumbnails, with the word in their path that says so.

    They are derived only if frames with the same names, or videos, exist as well. A sequence with such a name has
    masks elsewhere.

    Args:
        streams: all streams.
        films: whether there are videos.
    """
    named = {one: word for one in streams for word in (*one.parts, one.tail.strip("_-. ")) if MADE.fullmatch(word)}
    frames = [one.keys() for one in streams if one not in named and not one.masks]
    known, kinds = set().union(*frames), defaultdict[str, set[bool]](set)
    for one, word in named.items():
        kinds[word].add(one.masks)
    return {
        one: word
        for one, word in named.items()
        if len(kinds[word]) == 1 and (2 * len(one.keys() & known) >= len(one.files) or (films and not frames))
    }


def photographs_of(stream: Stream, frames: Sequence[Stream], masks: Sequence[Stream]) -> Stream | None:
    """Returns the frames with the names of images that are called masks but have too many colours, or None.

    Frames in a folder with masks of their own are not those of others: `labelled/images` does not match
    `all/images`.
    """
    if not _called_masks(stream):
        return None
    names, nearest = stream.keys(), max((_common(stream, one) for one in masks), default=0)
    return next(
        (
            one
            for one in frames
            if not _called_masks(one)
            and names <= one.keys()
            and not (nearest > _common(stream, one) and {*stream.parts} & {*one.parts})
        ),
        None,
    )


def among_others(frames: Sequence[Stream]) -> dict[Stream, Stream]:
    """Returns images that are a selection of the frames of a video in a parallel folder, with that video's images.

    Cityscapes has one of thirty frames in `leftImg8bit/train/ulm`, and all in `leftImg8bit_sequence/train/ulm`.
    """
    beside = defaultdict[tuple[str, ...], list[Stream]](list)
    for one in frames:
        for place in range(len(one.parts) - 1):
            beside[(*one.parts[:place], "", *one.parts[place + 1 :])].append(one)
    kinds = (group for group in beside.values() if len(group) <= MOST_KINDS)
    pairs = (pair for group in kinds for pair in permutations(group, 2))
    return {one: other for one, other in pairs if FEW * len(one.files) <= len(other.files) and _holds(other, one)}


def _holds(stream: Stream, few: Stream) -> bool:
    """Whether a stream has all names of a smaller one, and the same picture for the first of them."""
    ours, theirs = stream.by_key(), few.by_key()
    if not theirs.keys() <= ours.keys():
        return False
    name = next(iter(theirs))
    with suppress(MaskcastError):
        return np.array_equal(read_image(ours[name]), read_image(theirs[name]))
    return False


def _common(one: Stream, other: Stream) -> int:
    """Returns the number of top folders that both paths share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.parts, other.parts, strict=False)))


def drawn_frames(masks: Sequence[Stream], frames: Sequence[Stream]) -> list[Stream]:
    """Returns drawings and dark pictures that look like masks but are frames: masks with the same names exist."""
    called = [one.keys() for one in masks if _called_masks(one)]
    of_photographs = [one.keys() for one in frames]
    return [
        one
        for one in masks
        if not _called_masks(one)
        and one.keys() in called
        and not any(one.keys() <= names for names in of_photographs)
    ]


def _called_masks(stream: Stream) -> bool:
    return bool(MASK_WORDS.search("/".join((*stream.parts, stream.tail))))


def one_mask_each(read: Sequence[Stream], others: Sequence[Stream]) -> tuple[str, str] | None:
    """Returns two folders of masks that share frames but no pixels: then each folder is one class or object.

    Folders named by numbers, such as SA-V's objects, may share pixels, too.

    Args:
        read: masks that a pattern finds.
        others: images that no pattern finds; masks in folders with frames among these may belong to those frames.
    """
    places = {part for one in others if not one.masks for part in one.parts}
    for one, other in product(read, [other for other in others if other.masks][:LOOKED_AT]):
        beside = len(one.parts) == len(other.parts) and sum(map(ne, one.parts, other.parts)) <= 1
        names = {*other.parts} - {*one.parts}
        objects = bool(names) and all(map(str.isdecimal, names)) and bool(one.keys() & other.keys())
        if beside and not places & names and (objects or _apart(one, other)):
            first, second = (f"{each.place} ({each.files[0].name})" for each in (one, other))
            return first, second
    return None


def _apart(one: Stream, other: Stream) -> bool:
    """Whether two-valued masks never mark the same pixel, though some frames have marks in both."""
    ours, theirs = one.by_key(), other.by_key()
    shared = sorted(ours.keys() & theirs.keys())
    both = 0
    for number in evenly_spaced(len(shared), LOOKED_AT):
        with suppress(MaskcastError):
            pairs = [read_mask(paths[shared[number]]).values_HW for paths in (ours, theirs)]
            marked = [values_HW != values_HW.min() for values_HW in pairs]
            if any(len(np.unique(values_HW)) > 2 for values_HW in pairs) or pairs[0].shape != pairs[1].shape:
                return False
            if (marked[0] & marked[1]).any():
                return False
            both += all(each.any() for each in marked)
    return both > 1


def _holds_colours(stream: Stream) -> bool:
    with suppress(MaskcastError):
        return read_mask(stream.files[0]).grey() is None
    return False


def of_classes(masks: Sequence[Stream]) -> list[Stream]:
    """Returns the masks without those that show the same frames in another form."""
    if any(FINE in one.parts for one in masks):
        masks = [one for one in masks if COARSE not in one.parts]
    places = {one.parts: one for one in masks}
    kept = []
    for one in masks:
        renamed = [tuple(classes if part == other else part for part in one.parts) for other, classes in BESIDE]
        bare = [
            tuple(COLOURED.sub("", part) if part == other else part for part in one.parts) for other in one.parts
        ]
        grey = [places[parts] for parts in bare if parts in places and parts != one.parts]
        if any(parts in places and parts != one.parts for parts in renamed) or any(
            _holds_colours(one) and not _holds_colours(other) for other in grey
        ):
            continue
        rivals = [other.tail for other in masks if other.parts == one.parts]
        best = next((tail for ids in IDS for tail in rivals if tail.endswith(ids)), one.tail)
        if best == one.tail:
            kept.append(one)
    return kept
