"""Chooses which masks to read if several show the same frames: class masks rather than pictures for people."""

import re
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import product
from operator import ne

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.inspection.image_groups import ImageGroup
from maskcast.data.inspection.image_selection import parallel_pairs
from maskcast.data.masks.stored import read_mask
from maskcast.errors import MaskcastError

# Folders of instances or marks, each with the folder of class masks of the same frames, as tools write them.
CLASS_FOLDERS = (
    ("SegmentationObject", "SegmentationClass"),  # Pascal VOC, CVAT
    ("SegmentationObjectPNG", "SegmentationClassPNG"),  # labelme
    ("instances", "labels"),  # Mapillary Vistas
    ("panoptic", "labels"),
    ("TRA", "SEG"),  # Cell Tracking Challenge
    ("instance", "semantic"),  # KITTI
    ("colormaps", "masks"),  # BDD100K
    ("colormaps", "bitmasks"),
    ("Instance_masks", "Semantic_masks"),  # iSAID
    ("instance-filt", "label-filt"),  # ScanNet
    ("masks_human", "masks_machine"),  # Supervisely
    ("Categories", "Category_ids"),  # CIHP
)
# Coloured versions for people: `colored_masks` beside `masks`, VIPSeg's `panomasksRGB`, KITTI's `semantic_rgb`.
COLOURED = re.compile(r"[_-]?(colou?r(ed|s|maps?|i[sz]ed)?|rgb)[_-]?", re.IGNORECASE)
FINE, COARSE = "gtFine", "gtCoarse"  # Cityscapes' fine and coarse annotations
# Masks of Cityscapes and ApolloScape, the most useful first
CITYSCAPES_SUFFIXES = ("_labelIds", "_labelTrainIds", "_bin", "_instanceIds")

MAX_COMPARED = 12  # folders of masks, and frames of each, that are compared


def mask_like_frames(masks: Sequence[ImageGroup], frames: Sequence[ImageGroup]) -> list[ImageGroup]:
    """Returns drawings and dark pictures that look like masks but are frames: masks with the same names exist."""
    called = [one.keys() for one in masks if one.named_as_masks]
    of_photographs = [one.keys() for one in frames]
    return [
        one
        for one in masks
        if not one.named_as_masks
        and one.keys() in called
        and not any(one.keys() <= names for names in of_photographs)
    ]


def complementary_masks(read: Sequence[ImageGroup], others: Sequence[ImageGroup]) -> tuple[str, str] | None:
    """Returns two folders of masks that share frames but no pixels: then each folder is one class or object.

    Folders named by numbers, such as SA-V's objects, may share pixels, too.

    Args:
        read: masks that a pattern finds.
        others: images that no pattern finds; masks in folders with frames among these may belong to those frames.
    """
    places = {part for one in others if not one.are_masks for part in one.parts}
    for one, other in product(read, [other for other in others if other.are_masks][:MAX_COMPARED]):
        parallel = len(one.parts) == len(other.parts) and sum(map(ne, one.parts, other.parts)) <= 1
        names = {*other.parts} - {*one.parts}
        objects = bool(names) and all(map(str.isdecimal, names)) and bool(one.keys() & other.keys())
        if parallel and not places & names and (objects or _are_disjoint(one, other)):
            first, second = (f"{each.folder} ({each.files[0].name})" for each in (one, other))
            return first, second
    return None


def _are_disjoint(one: ImageGroup, other: ImageGroup) -> bool:
    """Whether two-valued masks never mark the same pixel, though some frames have marks in both."""
    ours, theirs = one.by_key(), other.by_key()
    shared = sorted(ours.keys() & theirs.keys())
    both = 0
    for number in evenly_spaced(len(shared), MAX_COMPARED):
        with suppress(MaskcastError):
            pairs = [read_mask(paths[shared[number]]).values_HW for paths in (ours, theirs)]
            marked = [values_HW != values_HW.min() for values_HW in pairs]
            if any(len(np.unique(values_HW)) > 2 for values_HW in pairs) or pairs[0].shape != pairs[1].shape:
                return False
            if (marked[0] & marked[1]).any():
                return False
            both += all(each.any() for each in marked)
    return both > 1


def _has_colours(group: ImageGroup) -> bool:
    with suppress(MaskcastError):
        return read_mask(group.files[0]).grey() is None
    return False


def unreadable_masks(masks: Sequence[ImageGroup]) -> dict[ImageGroup, str]:
    """Returns masks of an unsupported form, each with the error, if a parallel folder has readable ones."""
    error_of = lru_cache(_read_error)
    return {
        one: error
        for one, other in parallel_pairs(masks, 0)
        if one.keys() <= other.keys() and (error := error_of(one)) and not error_of(other)
    }


def _read_error(group: ImageGroup) -> str:
    try:
        read_mask(group.files[0])
    except MaskcastError as error:
        return str(error)
    return ""


def select_class_masks(masks: Sequence[ImageGroup]) -> list[ImageGroup]:
    """Returns the masks without those that show the same frames in another form."""
    if any(FINE in one.parts for one in masks):
        masks = [one for one in masks if COARSE not in one.parts]
    places = {one.parts: one for one in masks}
    suffixes = defaultdict[tuple[str, ...], list[str]](list)
    for one in masks:
        suffixes[one.parts].append(one.name_suffix)
    kept = []
    for one in masks:
        renamed = [
            tuple(classes if part == other else part for part in one.parts) for other, classes in CLASS_FOLDERS
        ]
        uncoloured = [
            tuple(COLOURED.sub("", part) if part == other else part for part in one.parts) for other in one.parts
        ]
        grey = [places[parts] for parts in uncoloured if parts in places and parts != one.parts]
        if any(parts in places and parts != one.parts for parts in renamed) or any(
            _has_colours(one) and not _has_colours(other) for other in grey
        ):
            continue
        rivals = suffixes[one.parts]
        best = next(
            (tail for ids in CITYSCAPES_SUFFIXES for tail in rivals if tail.endswith(ids)), one.name_suffix
        )
        if best == one.name_suffix:
            kept.append(one)
    return kept
