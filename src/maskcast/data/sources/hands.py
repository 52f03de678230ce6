"""What all layouts of hands share: their label maps, whose names a horizontal flip swaps."""

from collections.abc import Sequence

from maskcast.labels import LabelMap
from maskcast.simulator.hands import SIDES

VISIBLE = "visible"
MASK_KEYS = {"left": "__l", "right": "__r"}  # suffixes of the masks' keys in an LMDB


def hand_maps(parts: Sequence[str], *, visible: bool) -> tuple[LabelMap, ...]:
    """Returns a label map of parts for each hand; with ``visible`` also a map of which hand is seen."""
    maps = tuple(LabelMap(side, ("background", *parts)) for side in SIDES)
    return (*maps, LabelMap(VISIBLE, ("background", *SIDES))) if visible else maps
