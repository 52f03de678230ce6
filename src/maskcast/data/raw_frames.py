"""Reads the frames of a store's clips again from the raw data that they were prepared from, at their own size.

Legend: T frames, H height, W width, C = 3 channels (RGB), uint8.
"""

from pathlib import Path

import numpy as np

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.images import resize_frames
from maskcast.data.sources.base import Listing
from maskcast.errors import MaskcastError

MAX_DIFFERENCE = 4.0  # mean difference of equal frames that other versions of a decoder may make, of 255


class RawFrames:
    """The frames of clips at the size of the raw data.

    Args:
        raw: folder of the raw data.
        listing: the clips of this folder.
        store: the store that was prepared from it.
    """

    def __init__(self, raw: Path, listing: Listing, store: ClipStore) -> None:
        self._raw, self._store = raw, store
        self._clips = {clip.id: clip for clip in listing.clips}

    def __call__(self, clip: Clip) -> np.ndarray:
        """Returns the frames of a clip, (T, H, W, C).

        Raises:
            MaskcastError: the raw data have no such clip, it shows something else, or it cannot be read.
        """
        if clip.id not in self._clips:
            raise self._differs(f"has no clip {clip.id!r}")
        frames_THWC = self._clips[clip.id].load().frames
        known_THWC = self._store.frames(clip)
        if frames_THWC is None or len(frames_THWC) != len(known_THWC):
            raise self._differs(f"clip {clip.id!r} has other frames")
        for frame_HWC, known_HWC in zip(frames_THWC, known_THWC, strict=True):
            (resized_HWC,) = resize_frames(frame_HWC[None], self._store.height, self._store.width)
            if np.abs(resized_HWC.astype(np.int16) - known_HWC).mean() > MAX_DIFFERENCE:
                raise self._differs(f"clip {clip.id!r} shows something else")
        return frames_THWC

    def _differs(self, how: str) -> MaskcastError:
        return MaskcastError(
            f"{self._raw}: {how}; give the raw data and the --params that {self._store.root} was prepared with"
        )
