"""Tells which frames of a clip have labels.

If only some frames of a clip are labelled, the masks of the others are `IGNORE`. The clip's ``meta`` then lists
the labelled frames by map under `LABELLED_FRAMES`, and the store's ``meta`` names these maps, so that training
need not search the masks.

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
    """Returns the labelled frames by map, for maps of kind ``classes`` that do not have labels in all frames.

    Args:
        maps: all label maps.
        masks: masks (T, H, W) of some of the maps.
    """
    found: dict[str, list[int]] = {}
    for one in maps:
        if one.kind == "classes" and one.name in masks:
            known_T = (masks[one.name] != IGNORE).any(axis=(1, 2))
            if not known_T.all():
                found[one.name] = np.flatnonzero(known_T).tolist()
    return found


def labelled_frames(store: ClipStore, clip: Clip) -> Sequence[int]:
    """Returns the indices of a clip's frames that have labels in the store's chosen map."""
    if clip.kind != "labelled" or not store.has_masks(clip):
        return ()
    return clip.meta.get(LABELLED_FRAMES, {}).get(store.label_map.name, range(clip.num_frames))


class TrainingIndex:
    """Numbers the windows of clips that contain labels to learn from.

    Args:
        store: holds the clips.
        clips: in this order.
        maps: a window must have a labelled frame in one of these.
        length: number of frames of a window.
        reach: this many frames before and after a labelled frame count as labelled, too.
        skip: labels in the first frames of a window, so many, do not count.
    """

    def __init__(
        self,
        store: ClipStore,
        clips: Sequence[Clip],
        maps: Sequence[LabelMap],
        length: int,
        reach: int = 0,
        skip: int = 0,
    ) -> None:
        self._windows = FrameIndex(clips, length)
        self._kept: np.ndarray | None = None
        if not {one.name for one in maps} <= set(store.meta.get(LABELLED_FRAMES, ())):
            return  # a map that is not listed has labels in every frame
        kept = np.zeros(len(self._windows), bool)
        for k, clip in enumerate(clips):
            windows = kept[self._windows.start(k) : self._windows.start(k + 1)]
            for one in maps:
                for t in labelled_frames(store.of(one.name), clip):
                    windows[max(0, t - reach - length + 1) : max(0, t + reach - skip + 1)] = True
        self._kept = np.flatnonzero(kept)

    def __len__(self) -> int:
        return len(self._windows if self._kept is None else self._kept)

    def at(self, window: int) -> tuple[int, int]:
        """Returns the index of the clip that holds a window, and the index of the window's first frame."""
        return self._windows.at(window if self._kept is None else int(self._kept[window]))
