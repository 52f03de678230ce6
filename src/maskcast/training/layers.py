"""What a forecaster learns from: frames, masks, or the tracks of the objects in the masks, window by window.

Legend: B windows, T frames, H height, W width, S objects, F features of an object (see ``models.tracks``).
"""

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maskcast.data.clips import Clip, ClipStore
from maskcast.models.tracks import PACKED, pack_tracks

SPECK = 0.02  # spread, in picture heights, below which an object is too small to measure


class Layer(Protocol):
    """One kind of data of some clips of a store."""

    def window(self, clip: int, frames: slice, mirrored: bool) -> np.ndarray:
        """Returns some frames of the ``clip``-th clip, mirrored left to right or not."""

    def stack(self, windows: Sequence[np.ndarray]) -> Tensor:
        """Returns windows of the same number of frames as one batch."""


def layer_of(kind: str, store: ClipStore, chosen: Sequence[Clip]) -> Layer:
    """Returns the layer ``frames``, ``masks`` or ``tracks`` of the clips of ``store`` that have the chosen ids."""
    clips = [store.get(clip.id) for clip in chosen]
    return _Tracks(store, clips) if kind == "tracks" else _Pictures(kind, store, clips)


def whole_sights(store: ClipStore, chosen: Sequence[Clip], limit: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Returns class (M,), centre (M, 2) and size (M,) of every whole object in the masks of some of the clips.

    Args:
        store: holds their masks.
        chosen: clips by their ids.
        limit: clips read at most, spread evenly.
    """
    some = [chosen[k * len(chosen) // limit] for k in range(limit)] if len(chosen) > limit else chosen
    packed = [_pack(store, store.get(clip.id)).flatten(0, 1) for clip in some]
    rows_M8 = torch.cat([rows[(rows[:, 1] > 0) & (rows[:, 6] == 0)] for rows in packed])
    size_M = rows_M8[:, 4:6].mean(-1)
    rows_M8, size_M = rows_M8[size_M > SPECK], size_M[size_M > SPECK]
    return rows_M8[:, 0].long(), rows_M8[:, 2:4], size_M


def _pack(store: ClipStore, clip: Clip) -> Tensor:
    return pack_tracks(torch.from_numpy(store.masks(clip).copy()), store.num_classes)


class _Pictures:
    """Frames (T, H, W, 3) or masks (T, H, W), uint8; numpy sees only the part that is used."""

    def __init__(self, kind: str, store: ClipStore, clips: Sequence[Clip]) -> None:
        self.read, self.clips = store.frames if kind == "frames" else store.masks, clips

    def window(self, clip: int, frames: slice, mirrored: bool) -> np.ndarray:
        pictures = self.read(self.clips[clip])[frames]
        return pictures[:, :, ::-1] if mirrored else pictures

    def stack(self, windows: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(windows))


class _Tracks:
    """Tracks (T, S, F) float32, made from a clip's masks when first asked for: a thousandth of their size."""

    def __init__(self, store: ClipStore, clips: Sequence[Clip]) -> None:
        self.read = cache(lambda clip: _pack(store, clips[clip]).numpy())

    def window(self, clip: int, frames: slice, mirrored: bool) -> np.ndarray:
        tracks = self.read(clip)[frames]
        if mirrored:
            tracks = tracks.copy()
            tracks[..., PACKED.index("x")] *= -1
        return tracks

    def stack(self, windows: Sequence[np.ndarray]) -> Tensor:
        slots = max(window.shape[1] for window in windows)
        padded = [np.pad(window, ((0, 0), (0, slots - window.shape[1]), (0, 0))) for window in windows]
        return torch.from_numpy(np.stack(padded))
