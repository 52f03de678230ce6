"""What a forecaster learns from: frames, masks, the tracks of the objects in the masks, or both of these.

Legend: B windows, T frames, H height, W width, S objects, F features of an object (see ``models.tracks``).
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from maskcast.data.clip_index import evenly_spaced
from maskcast.data.clips import Clip, ClipStore
from maskcast.models.objects.tracks import PACKED, Lesson, pack_tracks, stack_tracks

SPECK = 0.02  # spread, in picture heights, below which an object is too small to measure
SIGHTS = 3  # frames of a clip in which an object is larger than that, or is taken for noise


class Window(NamedTuple):
    """Some frames of the ``clip``-th clip, mirrored left to right or not."""

    clip: int
    frames: slice
    mirrored: bool


class Layer(Protocol):
    """One kind of data of some clips of a store."""

    def batch(self, windows: Sequence[Window]) -> Tensor | Lesson:
        """Returns windows of the same number of frames as one batch."""


def layer_of(model: Any, store: ClipStore, chosen: Sequence[Clip]) -> Layer:
    """Returns what ``model`` learns from, of the clips of ``store`` that have the ids of the chosen ones."""
    clips = [store.get(clip.id) for clip in chosen]
    if model.learns_from == "tracks":
        return _Tracks(store, clips)
    if model.learns_from == "tracks and masks":
        return _TracksAndMasks(_Tracks(store, clips), _Pictures(store.masks, clips), model.pixels.clips)
    return _Pictures(store.frames if model.learns_from == "frames" else store.masks, clips)


def whole_sights(store: ClipStore, chosen: Sequence[Clip], limit: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Returns class (M,), centre (M, 2) and size (M,) of every whole object in the masks of some of the clips.

    Args:
        store: holds their masks.
        chosen: clips by their ids.
        limit: clips read at most, spread evenly.
    """
    some = [chosen[k] for k in evenly_spaced(len(chosen), limit, ends=False)]
    packed = [_pack(store, store.get(clip.id)).flatten(0, 1) for clip in some]
    rows_M8 = torch.cat([rows[(rows[:, 1] > 0) & (rows[:, 6] == 0)] for rows in packed])
    size_M = rows_M8[:, 4:6].mean(-1)
    rows_M8, size_M = rows_M8[size_M > SPECK], size_M[size_M > SPECK]
    return rows_M8[:, 0].long(), rows_M8[:, 2:4], size_M


def _pack(store: ClipStore, clip: Clip) -> Tensor:
    """Returns the tracks (T, S, F) of a clip's objects, without a masker's specks: pairs of objects cost time."""
    packed = pack_tracks(torch.from_numpy(store.masks(clip).copy()), store.num_classes)
    size_TS = packed[..., 4:6].mean(-1)
    return packed[:, (size_TS > SPECK).sum(0) >= min(SIGHTS, len(size_TS))]


class _Pictures:
    """Frames (T, H, W, 3) or masks (T, H, W), uint8; numpy sees only the part that is used."""

    def __init__(self, read: Callable[[Clip], np.ndarray], clips: Sequence[Clip]) -> None:
        self.read, self.clips = read, clips

    def batch(self, windows: Sequence[Window]) -> Tensor:
        return torch.from_numpy(np.stack([self._window(*window) for window in windows]))

    def _window(self, clip: int, frames: slice, mirrored: bool) -> np.ndarray:
        pictures = self.read(self.clips[clip])[frames]
        return pictures[:, :, ::-1] if mirrored else pictures


class _Tracks:
    """Tracks (T, S, F) float32, made from a clip's masks when first asked for: a thousandth of their size."""

    def __init__(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        self.read = cache(lambda clip: _pack(store, clips[clip]))

    def batch(self, windows: Sequence[Window]) -> Tensor:
        return stack_tracks([self._window(*window) for window in windows])

    def _window(self, clip: int, frames: slice, mirrored: bool) -> Tensor:
        tracks: Tensor = self.read(clip)[frames]
        if mirrored:
            tracks = tracks.clone()
            tracks[..., PACKED.index("x")] *= -1
        return tracks


class _TracksAndMasks:
    """Tracks of all windows, masks of the first ones: few are enough for what is learned from pixels."""

    def __init__(self, tracks: _Tracks, masks: _Pictures, count: int) -> None:
        self.tracks, self.masks, self.count = tracks, masks, count

    def batch(self, windows: Sequence[Window]) -> Lesson:
        return Lesson(self.tracks.batch(windows), self.masks.batch(windows[: self.count]))
