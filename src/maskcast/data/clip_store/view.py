"""The base of views: stores that show the masks of another store differently."""

from typing import Any

import numpy as np

from maskcast.data.clip_store.reader import ALL, ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.labels import LabelMap, MirrorSwaps


class StoreView(ClipStore):
    """A view of another store: it has the same clips and frames, and passes masks on that no subclass overrides.

    Pickled, it stays a view: the stores that it holds are opened again (see ``ClipStore``).

    Args:
        store: the other store.
    """

    def __init__(self, store: ClipStore) -> None:
        vars(self).update(vars(store))  # the table of clips and the open shards are shared
        self.store = store

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the kind of the view, the other store, and what the view adds to it."""
        shared = vars(self.store)
        own = {key: value for key, value in vars(self).items() if key not in shared or shared[key] is not value}
        return _unpickled, (type(self), self.store, own)

    @property
    def label_map(self) -> LabelMap:
        """The chosen map of the other store."""
        return self.store.label_map

    @property
    def mirror_swaps(self) -> MirrorSwaps:
        """The pairs that a horizontal flip swaps (see ``ClipStore.mirror_swaps``)."""
        return self.store.mirror_swaps

    def of(self, label_map: str) -> ClipStore:
        """Returns the view itself if this is its map, else the other store with the map (see ``ClipStore.of``)."""
        return self if label_map == self.label_map.name else self.store.of(label_map)

    def get(self, clip_id: str) -> Clip:
        """Returns the clip with this id (see ``ClipStore.get``)."""
        return self.store.get(clip_id)

    def has_masks(self, clip: Clip) -> bool:
        """Whether there are masks for a clip."""
        return self.store.has_masks(clip)

    def has_confidence(self, clip: Clip) -> bool:
        """Whether there is a confidence per mask pixel."""
        return self.store.has_confidence(clip)

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the masks (T, H, W) in a slice of the frames."""
        return self.store.masks(clip, frames)

    def confidence(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the confidence of each mask pixel in a slice of the frames, (T, H, W) uint8; 255 is certain."""
        return self.store.confidence(clip, frames)


def _unpickled(kind: type[StoreView], store: ClipStore, own: dict[str, Any]) -> StoreView:
    view = object.__new__(kind)
    vars(view).update(vars(store) | own)
    return view
