"""What all layouts of hands have in common: their label maps, and which names a mirrored picture swaps."""

from collections.abc import Sequence
from typing import Any

from maskcast.labels import MIRROR_SWAPS, LabelMap

SIDES = ("left", "right")
VISIBLE = "visible"
MASK_KEYS = {"left": "__l", "right": "__r"}  # what the keys of masks end with in an LMDB


def hand_maps(parts: Sequence[str], *, visible: bool) -> tuple[LabelMap, ...]:
    """Returns a map of each hand with its parts, and of which hand is seen where that is known."""
    maps = tuple(LabelMap(side, ("background", *parts)) for side in SIDES)
    return (*maps, LabelMap(VISIBLE, ("background", *SIDES))) if visible else maps


def swapping(one: str, other: str) -> dict[str, Any]:
    """Returns the meta of a store whose mirrored frames swap two names, of maps or of classes."""
    return {MIRROR_SWAPS: [one, other]}
