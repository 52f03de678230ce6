"""Which frames of a clip have labels.

A clip may be labelled in some frames only: the masks of the others are `IGNORE`. Then its ``meta`` says under
`LABELLED_FRAMES` which frames have labels, by map, and the store's ``meta`` holds the names of such maps, so that
training need not look for them.

Legend: T frames, H height, W width.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from maskcast.data.clip_store.frame_index import FrameIndex
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.labels import IGNORE, LabelMap

LABELLED_FRAMES = "labelled_frames"


def partly_labelled(maps: Sequence[LabelMap], masks: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Returns by map of kind ``classes`` which frames have labels, where not all of them have.

    Args:
        maps: all that there are.
        masks: (T, H, W) of some.
    """
    found: dict[str, list[int]] = {}
    for one in maps:
        if one.kind == "classes" and one.name in masks:
            known_T = (masks[one.name] != IGNORE).any(axis=(1, 2))
            if not known_T.all():
                found[one.name] = np.flatnonzero(known_T).tolist()
    return found


def labelled_frames(store: ClipStore, clip: Clip) -> Sequence[int]:
    """Returns the frames of a clip that have labels in the store's chosen map."""
    if clip.kind != "labelled" or not store.has_masks(clip):
        return ()
    return clip.meta.get(LABELLED_FRAMES, {}).get(store.label_map.name, range(clip.num_frames))


class TrainingIndex:
    """Numbers the windows of clips that have labels to learn from.

    Args:
        store: holds the clips.
        clips: in this order.
        maps: a window needs a frame with labels in one of them.
        length: frames of a window.
        reach: frames, before and after one with labels, that count as if they had some.
    """

    def __init__(
        self, store: ClipStore, clips: Sequence[Clip], maps: Sequence[LabelMap], length: int, reach: int = 0
    ) -> None:
        self._windows = FrameIndex(clips, length)
        self._kept: np.ndarray | None = None
        if not {one.name for one in maps} <= set(store.meta.get(LABELLED_FRAMES, ())):
            return  # a map has labels in every frame
        kept = np.zeros(len(self._windows), bool)
        for k, clip in enumerate(clips):
            windows = kept[self._windows.start(k) : self._windows.start(k + 1)]
            for one in maps:
                for t in labelled_frames(store.of(one.name), clip):
                    windows[max(0, t - reach - length + 1) : t + reach + 1] = True
        self._kept = np.flatnonzero(kept)

    def __len__(self) -> int:
        return len(self._windows if self._kept is None else self._kept)

    def at(self, window: int) -> tuple[int, int]:
        """Returns the number of the clip that holds a window, and the place of its first frame."""
        return self._windows.at(window if self._kept is None else int(self._kept[window]))
