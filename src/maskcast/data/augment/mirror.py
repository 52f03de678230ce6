"""Swaps for horizontal flips: a left hand becomes a right one, so two label maps, or two classes, are swapped."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, MirrorSwaps


def check_swaps(maps: Iterable[LabelMap], swaps: MirrorSwaps, where: str) -> None:
    """Refuses horizontal flips if only one of two swapped maps is trained, or their classes differ.

    Raises:
        MaskcastError: in these cases.
    """
    by_name = {label_map.name: label_map for label_map in maps}
    for one, other in swaps:
        if one not in by_name and other not in by_name:
            continue
        if one not in by_name or other not in by_name:
            trained, lacking = (one, other) if one in by_name else (other, one)
            raise MaskcastError(
                f"{where}: label map {trained!r} becomes {lacking!r} in flipped frames; "
                "train both (train_masker.maps), or set train_masker.augment.hflip to 0"
            )
        if by_name[one].classes != by_name[other].classes or by_name[one].kind != by_name[other].kind:
            raise MaskcastError(
                f"{where}: label maps {one!r} and {other!r} swap in flipped frames, but their classes differ; "
                "give them the same classes, or set train_masker.augment.hflip to 0"
            )


def check_swaps_of_one_map(label_map: LabelMap, swaps: MirrorSwaps, where: str) -> None:
    """Refuses horizontal flips for a forecaster of a map that becomes another one.

    Raises:
        MaskcastError: if it does.
    """
    for pair in swaps:
        if label_map.name in pair:
            (other,) = set(pair) - {label_map.name}
            raise MaskcastError(
                f"{where}: label map {label_map.name!r} becomes {other!r} in flipped frames, and a forecaster "
                "learns one map; set flip of pretrain_forecaster and finetune_forecaster to 0"
            )


def swapped_ids(classes: Sequence[str], swaps: MirrorSwaps) -> np.ndarray | None:
    """Returns which class each of K classes becomes in a mirror image, (K,) int64; None if no class changes."""
    pairs = [[classes.index(name) for name in pair] for pair in swaps if {*pair} <= {*classes}]
    if not pairs:
        return None
    ids_K = np.arange(len(classes))
    for pair in pairs:
        ids_K[pair] = pair[::-1]
    return ids_K


def swapped_classes(classes: Sequence[str], swaps: MirrorSwaps) -> np.ndarray | None:
    """Returns which class each mask value becomes in a mirror image, (256,) uint8; None if no class changes."""
    ids_K = swapped_ids(classes, swaps)
    if ids_K is None:
        return None
    table = np.arange(256, dtype=np.uint8)
    table[: len(ids_K)] = ids_K
    return table


def swap_masks(masks: Mapping[LabelMap, np.ndarray], swaps: MirrorSwaps) -> dict[LabelMap, np.ndarray]:
    """Returns masks with the names of each pair swapped: two maps, and two classes in any map of kind classes.

    Args:
        masks: (T, H, W) for each label map; includes both of two swapped maps or neither.
        swaps: the pairs of names.
    """
    by_name = {label_map.name: masks_THW for label_map, masks_THW in masks.items()}
    partner = {name: other for pair in swaps for name, other in (pair, pair[::-1])}
    swapped = {}
    for label_map in masks:
        masks_THW = by_name[partner.get(label_map.name, label_map.name)]
        table = swapped_classes(label_map.classes, swaps) if label_map.kind == "classes" else None
        swapped[label_map] = masks_THW if table is None else table[masks_THW]
    return swapped
