"""What all layouts of hands share: their label maps, and the names that a horizontal flip swaps."""

from collections.abc import Sequence
from typing import Any

from maskcast.labels import MIRROR_SWAPS, LabelMap

SIDES = ("left", "right")
VISIBLE = "visible"
MASK_KEYS = {"left": "__l", "right": "__r"}  # suffixes of the masks' keys in an LMDB


def hand_maps(parts: Sequence[str], *, visible: bool) -> tuple[LabelMap, ...]:
    """Returns a label map of parts for each hand; with ``visible`` also a map of which hand is seen."""
    maps = tuple(LabelMap(side, ("background", *parts)) for side in SIDES)
    return (*maps, LabelMap(VISIBLE, ("background", *SIDES))) if visible else maps


def mirror_swaps_meta(one: str, other: str) -> dict[str, Any]:
    """Returns the meta of a store in which a horizontal flip swaps two names, of label maps or of classes."""
    return {MIRROR_SWAPS: [one, other]}
