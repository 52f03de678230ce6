"""A clip store that shows the masks of another in a way of its own."""

import numpy as np

from maskcast.data.clip_store.reader import ALL, ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.labels import LabelMap


class StoreView(ClipStore):
    """Reads another store; what a subclass does not say anew is as the other says it.

    Args:
        store: the other one.
    """

    def __init__(self, store: ClipStore) -> None:
        vars(self).update(vars(store))  # the table of clips and the open shards are shared
        self.store = store

    @property
    def label_map(self) -> LabelMap:
        """The map that the store speaks of."""
        return self.store.label_map

    def of(self, label_map: str) -> ClipStore:
        """Returns the view itself where it speaks of this map, else the other store (see ``ClipStore.of``)."""
        return self if label_map == self.label_map.name else self.store.of(label_map)

    def get(self, clip_id: str) -> Clip:
        """Returns the clip with this id (see ``ClipStore.get``)."""
        return self.store.get(clip_id)

    def has_masks(self, clip: Clip) -> bool:
        """Whether there are masks of a clip."""
        return self.store.has_masks(clip)

    def has_confidence(self, clip: Clip) -> bool:
        """Whether there is a confidence per mask pixel."""
        return self.store.has_confidence(clip)

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the masks in a slice of the frames, (T, H, W)."""
        return self.store.masks(clip, frames)

    def confidence(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the confidence of each mask pixel in a slice of the frames, (T, H, W) uint8, 255 = certain."""
        return self.store.confidence(clip, frames)
