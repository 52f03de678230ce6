"""Training batches of forecasters: frames, masks, tracks of the objects in masks, or tracks and masks.

Shapes: B windows, C the first of them, T frames, H height, W width, S objects, M observations, 8 features of an
object (see ``models.objects.tracks.PACKED``).
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from itertools import accumulate
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from maskcast.data.augment.mirror import swapped_classes
from maskcast.data.clip_store.frame_index import spread
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.dry_run_notes import FullLoop, is_dry_run
from maskcast.forking import shared_array, shared_lock
from maskcast.labels import IGNORE
from maskcast.models.forecasting.input import Input
from maskcast.models.objects.completion import Completion, pack_whole
from maskcast.models.objects.cutting import CutObservations, cut_observations, train_completion
from maskcast.models.objects.motion import ObjectMotion
from maskcast.models.objects.tracks import DOUBT, PACKED, pack_tracks, stack_tracks
from maskcast.progress import track
from maskcast.seed import rng

MIN_SIZE = 0.02  # size (standard deviation, in picture heights) below which an object is ignored
MAX_MEASURED_CLIPS, MAX_CUT_CLIPS = 200, 1200  # most clips for measuring whole objects, and for cut observations
CUT_SEED = 7  # random seed for cutting observations
MIN_FRAMES = 3  # an object that is larger than ``MIN_SIZE`` in fewer of its clip's known frames counts as noise


class Window(NamedTuple):
    """A range of frames of the ``clip``-th clip, optionally mirrored left to right.

    In mirrored masks and tracks, classes are swapped as the store's ``mirror_swaps`` says.
    """

    clip: int
    frames: slice
    mirrored: bool


class TrackBatch(NamedTuple):
    """A batch for a forecaster that learns motion from all windows but pixels from some only."""

    tracks_BTS8: Tensor  # packed tracks of all windows
    masks_CTHW: Tensor  # uint8 masks of the first C windows


Batch = Tensor | TrackBatch


class BatchSource(Protocol):
    """The training data of a forecaster."""

    def batch(self, windows: Sequence[Window]) -> Batch:
        """Returns windows of the same number of frames as one batch."""


class PixelBatches:
    """Masks (B, T, H, W) or frames (B, T, H, W, 3), uint8."""

    def __init__(self, store: ClipStore, clips: Sequence[Clip], kind: Input) -> None:
        self.store, self.clips, self.kind = store, clips, kind
        self._swapped = None
        if kind is Input.MASKS:
            self._swapped = swapped_classes(store.classes, store.mirror_swaps)

    def batch(self, windows: Sequence[Window]) -> Tensor:
        """Returns windows as one batch."""
        return torch.from_numpy(np.stack([self._window(*window) for window in windows]))

    def _window(self, clip: int, frames: slice, mirrored: bool) -> np.ndarray:
        pictures = self.kind.read(self.store, self.clips[clip], frames)
        if not mirrored:
            return pictures
        return pictures[:, :, ::-1] if self._swapped is None else self._swapped[pictures[:, :, ::-1]]


class ObjectTracks:
    """Packed tracks (B, T, S, 8) float32, a thousandth of the size of the masks.

    The tracks of a clip are computed at its first use and kept, in memory that the processes which make batches
    share. In a dry run all are computed at once, to measure the time. With ``completion`` they are those of whole
    objects.
    """

    def __init__(self, store: ClipStore, clips: Sequence[Clip], completion: Completion | None) -> None:
        self._classes = store.label_map.num_classes  # ids in masks may be object numbers, see ``objects.parts``
        swapped = swapped_classes(store.classes, store.mirror_swaps)
        self._swapped = None if swapped is None else torch.from_numpy(swapped).float()
        cpu_completion = deepcopy(completion)  # stays on the CPU, as the batches do
        self._compute = lambda clip: _pack(store, clips[clip], cpu_completion)
        self._num_frames = [clip.num_frames for clip in clips]
        self._num_entries = len(PACKED) + (0 if completion is None else len(DOUBT))
        most = max(1, store.num_classes - 1) * self._num_entries  # numbers of a frame
        self._starts = [most * frames for frames in accumulate(self._num_frames, initial=0)]
        self._numbers = shared_array(self._starts[-1], np.float32)
        self._num_objects = shared_array(len(clips), np.uint8)  # 0 until they are known
        self._lock = shared_lock()
        if is_dry_run():
            for clip in track(range(len(clips)), "tracks of clips", of=FullLoop(splits=splits_of(clips))):
                self.read(clip)

    def read(self, clip: int) -> Tensor:
        """Returns the tracks (T, S, 8) of the ``clip``-th clip."""
        with self._lock:
            num_objects = int(self._num_objects[clip])
        start = self._starts[clip]
        if num_objects:
            shape = self._num_frames[clip], num_objects, self._num_entries
            return torch.from_numpy(self._numbers[start : start + math.prod(shape)].reshape(shape))
        packed = self._compute(clip)
        self._numbers[start : start + packed.numel()] = packed.flatten().numpy()
        with self._lock:  # others see the numbers before their count
            self._num_objects[clip] = packed.shape[1]
        return packed

    def batch(self, windows: Sequence[Window]) -> Tensor:
        """Returns windows as one batch."""
        return stack_tracks([self._window(*window) for window in windows])

    def _window(self, clip: int, frames: slice, mirrored: bool) -> Tensor:
        tracks: Tensor = self.read(clip)[frames]
        if mirrored:
            tracks = tracks.clone()
            tracks[..., PACKED.index("x")] *= -1
            if self._swapped is not None:
                ids = tracks[..., PACKED.index("class")].long()
                class_ids = ids % self._classes
                tracks[..., PACKED.index("class")] = self._swapped[class_ids] + (ids - class_ids)
        return tracks


class TracksAndMasks:
    """Tracks of all windows and masks of the first ``count``, which are enough to learn from pixels."""

    def __init__(self, store: ClipStore, clips: Sequence[Clip], count: int, completion: Completion | None) -> None:
        self.tracks = ObjectTracks(store, clips, completion)
        self.masks, self.count = PixelBatches(store, clips, Input.MASKS), count

    def batch(self, windows: Sequence[Window]) -> TrackBatch:
        """Returns windows as one batch."""
        return TrackBatch(self.tracks.batch(windows), self.masks.batch(windows[: self.count]))


def prepare_motion(motion: ObjectMotion, store: ClipStore, clips: Sequence[Clip]) -> None:
    """Fits the ground plane of the objects and, if ``motion`` completes cut objects, trains the completion."""
    motion.calibrate(*whole_objects(store, clips))
    if motion.completion is not None:
        train_completion(motion.completion, cut_objects(store, clips))


def whole_objects(store: ClipStore, clips: Sequence[Clip]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns class (M,), centre (M, 2) and size (M,) of all whole objects in frames of a sample of the clips.

    Args:
        store: holds their masks.
        clips: of that store.
    """
    sample = spread(clips, MAX_MEASURED_CLIPS, ends=False)
    packed = [_pack(store, clip).flatten(0, 1) for clip in sample]
    rows_M8 = torch.cat([rows[(rows[:, 1] > 0) & (rows[:, 6] == 0)] for rows in packed])
    size_M = rows_M8[:, 4:6].mean(-1)
    rows_M8, size_M = rows_M8[size_M > MIN_SIZE], size_M[size_M > MIN_SIZE]
    return rows_M8[:, 0].long(), rows_M8[:, 2:4], size_M


def cut_objects(store: ClipStore, clips: Sequence[Clip]) -> list[CutObservations]:
    """Returns cut observations of whole objects, from a sample of the clips."""
    sample = spread(clips, MAX_CUT_CLIPS, ends=False)
    tracked = track(sample, "cutting objects", of=FullLoop(MAX_CUT_CLIPS, splits_of(clips)))
    cut_clips = [
        cut_observations(store.masks(clip), store.num_classes, rng(CUT_SEED, k)) for k, clip in enumerate(tracked)
    ]
    return [observations for observations in cut_clips if observations is not None]


def splits_of(clips: Sequence[Clip]) -> list[str]:
    """Returns the sorted names of the clips' splits."""
    return sorted({clip.split for clip in clips})


def _pack(store: ClipStore, clip: Clip, completion: Completion | None = None) -> Tensor:
    """Returns the tracks (T, S, 8) of a clip's objects. Specks are dropped, because pairs of objects cost time."""
    masks_THW = torch.from_numpy(store.masks(clip))
    packed = pack_tracks(masks_THW, store.num_classes)
    size_TS, known_T = packed[..., 4:6].mean(-1), packed[:, 0, 1] >= 0
    large_S = (size_TS > MIN_SIZE).sum(0) >= min(MIN_FRAMES, int(known_T.sum()))
    packed = packed[:, large_S] if large_S.any() else pack_tracks(masks_THW.where(masks_THW == IGNORE, 0), 1)
    return packed if completion is None else pack_whole(completion, masks_THW, packed)
