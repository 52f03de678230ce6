"""The masks that motion is learned from: generated ones, and true ones of clips that have no frames."""

import numpy as np

from maskcast.data.clip_table import Clip, labels_of
from maskcast.data.clips import ALL, ClipStore
from maskcast.labels import LabelMap


class KnownMasks(ClipStore):
    """Generated masks, and the true masks of the training clips that have no frames.

    Args:
        generated: the masks of all clips that have frames.
        prepared: the clips; both speak of the same label map.
    """

    def __init__(self, generated: ClipStore, prepared: ClipStore) -> None:
        vars(self).update(vars(generated))
        self.generated, self.prepared = generated, prepared
        layer = labels_of(prepared.label_map.name)
        found = prepared.where(
            lambda group: (
                (group.split, group.kind) == ("train", "labelled")
                and not group.has_frames
                and layer in group.layers
            )
        )
        self.alone = {clip.id: clip for clip in found if clip.id not in generated}
        """The clips that masks alone are known of, by id."""

    @property
    def label_map(self) -> LabelMap:
        """The map that both speak of."""
        return self.generated.label_map

    def get(self, clip_id: str) -> Clip:
        """Returns the clip with this id, as the store has it that its masks are in."""
        return self.alone[clip_id] if clip_id in self.alone else self.generated.get(clip_id)

    def has_masks(self, clip: Clip) -> bool:
        """Whether there are masks of a clip."""
        return clip.id in self.alone or self.generated.has_masks(clip)

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the masks in a slice of the frames, (T, H, W)."""
        if clip.id in self.alone:
            return self.prepared.masks(clip, frames)
        return self.generated.masks(clip, frames)
