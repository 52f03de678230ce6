"""What forecasters learn from: frames, masks, the tracks of the objects in the masks, or both of these.

Shapes: B windows, C of them, T frames, H height, W width, S objects, M observations, 8 features of an object (see
``models.objects.tracks.PACKED``).
"""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.models.forecasting.input import Input
from maskcast.models.objects.completion import Completion, pack_whole
from maskcast.models.objects.cutting import CutSights, cut_sights, learn
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.tracks import PACKED, pack_tracks, stack_tracks
from maskcast.progress import track
from maskcast.rehearsal import AllOf, rehearsing
from maskcast.seed import rng

SPECK = 0.02  # size (standard deviation), in picture heights, below which an object is too small to measure
MEASURED, CUT_FROM = 200, 1200  # clips at most, whose whole objects are measured, and whose sights are cut
CUT = 7  # seed of where sights are cut
SIGHTINGS = 3  # frames of a clip in which an object must be larger than that, or it is taken for noise


class Window(NamedTuple):
    """Some frames of the ``clip``-th clip, mirrored left to right or not."""

    clip: int
    frames: slice
    mirrored: bool


class TrackBatch(NamedTuple):
    """A batch for a forecaster that learns motion from all windows and pixels from some of them."""

    tracks_BTS8: Tensor  # packed, of all windows
    masks_CTHW: Tensor  # uint8, of the first C windows


Batch = Tensor | TrackBatch


class BatchSource(Protocol):
    """The training data of a forecaster."""

    def batch(self, windows: Sequence[Window]) -> Batch:
        """Returns windows of the same number of frames as one batch."""


class Pictures:
    """Masks (B, T, H, W) or frames (B, T, H, W, 3), uint8."""

    def __init__(self, store: ClipStore, clips: Sequence[Clip], kind: Input) -> None:
        self.store, self.clips, self.kind = store, clips, kind

    def batch(self, windows: Sequence[Window]) -> Tensor:
        """Returns windows as one batch."""
        return torch.from_numpy(np.stack([self._window(*window) for window in windows]))

    def _window(self, clip: int, frames: slice, mirrored: bool) -> np.ndarray:
        pictures = self.kind.read(self.store, self.clips[clip], frames)
        return pictures[:, :, ::-1] if mirrored else pictures


class ObjectTracks:
    """Packed tracks (B, T, S, 8) float32: a thousandth of the size of the masks that they are made from.

    They are made when a clip is first asked for, and kept; in a rehearsal at once, to see what that takes. With
    ``completion`` they are those of whole objects.
    """

    def __init__(self, store: ClipStore, clips: Sequence[Clip], completion: Completion | None) -> None:
        own = deepcopy(completion)  # stays on the CPU, as the batches do
        self.read = cache(lambda clip: _pack(store, clips[clip], own))
        if rehearsing():
            for clip in track(range(len(clips)), "tracks of clips", of=AllOf(splits=splits_of(clips))):
                self.read(clip)

    def batch(self, windows: Sequence[Window]) -> Tensor:
        """Returns windows as one batch."""
        return stack_tracks([self._window(*window) for window in windows])

    def _window(self, clip: int, frames: slice, mirrored: bool) -> Tensor:
        tracks: Tensor = self.read(clip)[frames]
        if mirrored:
            tracks = tracks.clone()
            tracks[..., PACKED.index("x")] *= -1
        return tracks


class TracksAndMasks:
    """Tracks of all windows and masks of the first ``count``: few are enough for what is learned from pixels."""

    def __init__(self, store: ClipStore, clips: Sequence[Clip], count: int, completion: Completion | None) -> None:
        self.tracks = ObjectTracks(store, clips, completion)
        self.masks, self.count = Pictures(store, clips, Input.MASKS), count

    def batch(self, windows: Sequence[Window]) -> TrackBatch:
        """Returns windows as one batch."""
        return TrackBatch(self.tracks.batch(windows), self.masks.batch(windows[: self.count]))


def prepare_motion(motion: ObjectMotion, store: ClipStore, clips: Sequence[Clip]) -> None:
    """Finds the ground plane that objects move on, and learns to complete cut sights where ``motion`` does so."""
    motion.calibrate(*whole_objects(store, clips))
    if motion.completion is not None:
        learn(motion.completion, cuts(store, clips))


def whole_objects(store: ClipStore, clips: Sequence[Clip]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns class (M,), centre (M, 2) and size (M,) of every whole object in every frame of some of the clips.

    Args:
        store: holds their masks.
        clips: of that store.
    """
    some = spread(clips, MEASURED)
    packed = [_pack(store, clip).flatten(0, 1) for clip in some]
    rows_M8 = torch.cat([rows[(rows[:, 1] > 0) & (rows[:, 6] == 0)] for rows in packed])
    size_M = rows_M8[:, 4:6].mean(-1)
    rows_M8, size_M = rows_M8[size_M > SPECK], size_M[size_M > SPECK]
    return rows_M8[:, 0].long(), rows_M8[:, 2:4], size_M


def cuts(store: ClipStore, clips: Sequence[Clip]) -> list[CutSights]:
    """Returns cut sights whose whole is known, of some of the clips: see ``whole_objects``."""
    some = enumerate(track(spread(clips, CUT_FROM), "cutting sights", of=AllOf(CUT_FROM, splits_of(clips))))
    found = [cut_sights(store.masks(clip), store.num_classes, rng(CUT, k)) for k, clip in some]
    return [sights for sights in found if sights is not None]


def spread(clips: Sequence[Clip], most: int) -> list[Clip]:
    """Returns ``most`` of some clips, evenly spaced, or all if there are no more."""
    return [clips[k] for k in evenly_spaced(len(clips), most, ends=False)]


def splits_of(clips: Sequence[Clip]) -> list[str]:
    """Returns the splits that some clips are of, in order."""
    return sorted({clip.split for clip in clips})


def _pack(store: ClipStore, clip: Clip, completion: Completion | None = None) -> Tensor:
    """Returns the tracks (T, S, 8) of a clip's objects without a masker's specks: pairs of objects cost time."""
    masks_THW = torch.from_numpy(store.masks(clip))
    packed = pack_tracks(masks_THW, store.num_classes)
    size_TS = packed[..., 4:6].mean(-1)
    packed = packed[:, (size_TS > SPECK).sum(0) >= min(SIGHTINGS, len(size_TS))]
    return packed if completion is None else pack_whole(completion, masks_THW, packed)
