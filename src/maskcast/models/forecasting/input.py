"""The input of a forecaster: the masks of clips, or their frames; nothing here imports torch."""

from enum import StrEnum

import numpy as np

from maskcast.data.clip_store.reader import Clip, ClipStore


class Input(StrEnum):
    """The kind of a forecaster's input, which is also that of its output."""

    MASKS = "masks"
    FRAMES = "frames"

    @property
    def channels(self) -> tuple[int, ...]:
        """The axes after (clips, frames, height, width)."""
        return (3,) if self is Input.FRAMES else ()

    @property
    def needs_masker(self) -> bool:
        """Whether a masker is needed to turn a forecast into masks."""
        return self is Input.FRAMES

    def source(self, clips: ClipStore, masks: ClipStore) -> ClipStore:
        """Returns the store that a forecaster reads: of frames or of masks."""
        return clips if self is Input.FRAMES else masks

    def is_in(self, store: ClipStore, clip: Clip) -> bool:
        """Whether a store has this input for a clip."""
        return clip.has_frames if self is Input.FRAMES else store.has_masks(clip)

    def read(self, store: ClipStore, clip: Clip, frames: slice) -> np.ndarray:
        """Returns masks (T, H, W) or frames (T, H, W, 3) of a part of a clip, uint8."""
        return store.frames(clip)[frames] if self is Input.FRAMES else store.masks(clip, frames)
