"""Of several images of the same frames those that are to be read: masks of classes, no pictures for people."""

import re
from collections.abc import Sequence
from itertools import takewhile

from maskcast.data.inspection.streams import MASK_WORDS, Stream

# What tools and data sets write: masks of classes, and in the folder beside them the same with objects, or marks.
BESIDE = {
    "SegmentationObject": "SegmentationClass",  # Pascal VOC, CVAT
    "SegmentationObjectPNG": "SegmentationClassPNG",  # labelme
    "instances": "labels",  # Mapillary Vistas
    "panoptic": "labels",
    "TRA": "SEG",  # Cell Tracking Challenge
}
IDS = (
    "_labelIds",
    "_labelTrainIds",
    "_instanceIds",
)  # Cityscapes has these, the best first, beside colours and objects
# What shows frames under their masks, such as the folders of labelme's scripts.
FOR_PEOPLE = re.compile(r".*Visualization|overlays?|masked", re.IGNORECASE)


def for_people(stream: Stream) -> bool:
    """Whether images show frames and masks to people."""
    return any(map(FOR_PEOPLE.fullmatch, stream.parts))


def photographs_of(stream: Stream, frames: Sequence[Stream], masks: Sequence[Stream]) -> Stream | None:
    """Returns the frames whose names images have that are called after masks, and are none by their colours.

    Frames of a folder that holds their masks, too, are no others': `labelled/images` are none of `all/images`.
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


def _common(one: Stream, other: Stream) -> int:
    """Returns in how many folders, from the top, both lie."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.parts, other.parts, strict=False)))


def drawn_frames(masks: Sequence[Stream], frames: Sequence[Stream]) -> list[Stream]:
    """Returns drawings and dark pictures that look like masks, and are the frames of others called so."""
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


def of_classes(masks: Sequence[Stream]) -> list[Stream]:
    """Returns the masks without those that show the frames of others in another way."""
    places = {one.parts for one in masks}
    kept = []
    for one in masks:
        classes = BESIDE.get("".join(one.parts[-1:]))
        if classes is not None and (*one.parts[:-1], classes) in places:
            continue
        rivals = [other.tail for other in masks if other.parts == one.parts]
        best = next((tail for ids in IDS for tail in rivals if tail.endswith(ids)), one.tail)
        if best == one.tail:
            kept.append(one)
    return kept
