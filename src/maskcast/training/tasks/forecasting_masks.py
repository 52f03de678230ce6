"""The masks that forecasters learn from: generated masks, and true masks of clips without frames."""

from collections.abc import Sequence

import numpy as np

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ALL, ClipStore
from maskcast.data.clip_store.table import Clip, masks_layer
from maskcast.data.clip_store.view import StoreView


class KnownMasks(StoreView):
    """Generated masks, and the true masks of training clips without frames.

    Args:
        generated: a store with masks of all clips that have frames.
        prepared: the store of the clips; both stores have the same label map chosen.
    """

    def __init__(self, generated: ClipStore, prepared: ClipStore) -> None:
        super().__init__(generated)
        self.prepared = prepared
        layer = masks_layer(prepared.label_map.name)
        found = prepared.where(
            lambda group: (
                (group.split, group.kind) == ("train", "labelled")
                and not group.has_frames
                and layer in group.layers
            )
        )
        self.alone = {clip.id: clip for clip in found if clip.id not in generated}
        """The clips that masks alone are known of, by id."""

    def get(self, clip_id: str) -> Clip:
        """Returns the clip with this id from the store that holds its masks."""
        return self.alone[clip_id] if clip_id in self.alone else super().get(clip_id)

    def has_masks(self, clip: Clip) -> bool:
        """Whether there are masks for a clip."""
        return clip.id in self.alone or super().has_masks(clip)

    def known_frames(self, clip: Clip) -> Sequence[int]:
        """Returns the indices of a clip's frames with known masks: all if generated, the labelled ones if true."""
        are_true = clip.id in self.alone or self.store.digest == self.prepared.digest
        return labelled_frames(self.prepared, clip) if are_true else range(clip.num_frames)

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the masks in a slice of the frames, (T, H, W)."""
        return self.prepared.masks(clip, frames) if clip.id in self.alone else super().masks(clip, frames)
