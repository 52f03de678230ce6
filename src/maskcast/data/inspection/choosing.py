"""Of several images of the same frames those that are to be read: masks of classes, no pictures for people."""

import re
from collections.abc import Sequence

from maskcast.data.inspection.streams import MASK_WORDS, Stream

# What tools and data sets write: masks of classes, and in the folder beside them the same with objects, or marks.
BESIDE = {
    "SegmentationObject": "SegmentationClass",  # Pascal VOC, CVAT
    "SegmentationObjectPNG": "SegmentationClassPNG",  # labelme
    "instances": "labels",  # Mapillary Vistas
    "panoptic": "labels",
    "TRA": "SEG",  # Cell Tracking Challenge
}
IDS = ("_labelIds", "_labelTrainIds")  # Cityscapes has these, the best first, beside colours and objects
# What shows frames under their masks, such as the folders of labelme's scripts.
FOR_PEOPLE = re.compile(r".*Visualization|overlays?|masked", re.IGNORECASE)


def for_people(stream: Stream) -> bool:
    """Whether images show frames and masks to people."""
    return bool(FOR_PEOPLE.fullmatch("/".join(stream.parts[-1:])))


def photographs_of(stream: Stream, frames: Sequence[Stream]) -> Stream | None:
    """Returns the frames whose names images have that are called after masks, and are none by their colours."""
    if not _called_masks(stream):
        return None
    names = stream.keys()
    return next((one for one in frames if not _called_masks(one) and names <= one.keys()), None)


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
