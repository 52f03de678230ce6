"""Mirrored frames: the left hand becomes a right one, so maps, or classes, of two names change places."""

from collections.abc import Iterable, Mapping

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, MirrorSwaps


def check_swaps(maps: Iterable[LabelMap], swaps: MirrorSwaps | None, where: str) -> None:
    """Refuses to mirror frames of which one map is learnt without the other, or whose classes differ.

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
    """Returns masks in which two names have changed places: two maps, and two classes of any other map of classes.

    Args:
        masks: (T, H, W) of each map; of the two maps both or neither.
        swaps: the names.
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
