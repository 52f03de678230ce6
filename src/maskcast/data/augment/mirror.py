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
    found = [one for one in maps if swaps is not None and one.name in swaps]
    if swaps is None or not found:
        return
    if len(found) == 1:
        (other,) = set(swaps) - {found[0].name}
        raise MaskcastError(
            f"{where}: label map {found[0].name!r} becomes {other!r} in mirrored frames; "
            "learn both (train_masker.maps), or set train_masker.augment.hflip to 0"
        )
    if found[0].classes != found[1].classes or found[0].kind != found[1].kind:
        raise MaskcastError(
            f"{where}: label maps {swaps[0]!r} and {swaps[1]!r} swap in mirrored frames and have other classes; "
            "give them the same, or set train_masker.augment.hflip to 0"
        )


def swapped(masks: Mapping[LabelMap, np.ndarray], swaps: MirrorSwaps) -> dict[LabelMap, np.ndarray]:
    """Returns masks with two names swapped: the two maps, and the two classes in any other map of kind classes.

    Args:
        masks: (T, H, W) for each label map; includes both of the two maps or neither.
        swaps: the two names.
    """
    by_name = {label_map.name: masks_THW for label_map, masks_THW in masks.items()}
    other = dict(zip(swaps, reversed(swaps), strict=True))
    out = {}
    for label_map, masks_THW in masks.items():
        if label_map.name in other:
            out[label_map] = by_name[other[label_map.name]]
        elif label_map.kind == "classes" and set(swaps) <= set(label_map.classes):
            pair = [label_map.classes.index(name) for name in swaps]
            table = np.arange(256, dtype=np.uint8)
            table[pair] = pair[::-1]
            out[label_map] = table[masks_THW]
        else:
            out[label_map] = masks_THW
    return out
