"""Swaps for horizontal flips: a left hand becomes a right one, so two label maps, or two classes, are swapped."""

from collections.abc import Iterable, Mapping

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, MirrorSwaps


def check_swaps(maps: Iterable[LabelMap], swaps: MirrorSwaps | None, where: str) -> None:
    """Refuses horizontal flips if only one of two swapped maps is trained, or their classes differ.

    Raises:
        MaskcastError: in these cases.
    """
    swapped_maps = [label_map for label_map in maps if swaps is not None and label_map.name in swaps]
    if swaps is None or not swapped_maps:
        return
    if len(swapped_maps) == 1:
        (other,) = set(swaps) - {swapped_maps[0].name}
        raise MaskcastError(
            f"{where}: label map {swapped_maps[0].name!r} becomes {other!r} in flipped frames; "
            "train both (train_masker.maps), or set train_masker.augment.hflip to 0"
        )
    if swapped_maps[0].classes != swapped_maps[1].classes or swapped_maps[0].kind != swapped_maps[1].kind:
        raise MaskcastError(
            f"{where}: label maps {swaps[0]!r} and {swaps[1]!r} swap in flipped frames, but their classes differ; "
            "give them the same classes, or set train_masker.augment.hflip to 0"
        )


def swap_masks(masks: Mapping[LabelMap, np.ndarray], swaps: MirrorSwaps) -> dict[LabelMap, np.ndarray]:
    """Returns masks with two names swapped: the two maps, and the two classes in any other map of kind classes.

    Args:
        masks: (T, H, W) for each label map; includes both of the two maps or neither.
        swaps: the two names.
    """
    by_name = {label_map.name: masks_THW for label_map, masks_THW in masks.items()}
    partner = dict(zip(swaps, reversed(swaps), strict=True))
    swapped = {}
    for label_map, masks_THW in masks.items():
        if label_map.name in partner:
            swapped[label_map] = by_name[partner[label_map.name]]
        elif label_map.kind == "classes" and set(swaps) <= set(label_map.classes):
            class_ids = [label_map.classes.index(name) for name in swaps]
            table = np.arange(256, dtype=np.uint8)
            table[class_ids] = class_ids[::-1]
            swapped[label_map] = table[masks_THW]
        else:
            swapped[label_map] = masks_THW
    return swapped
