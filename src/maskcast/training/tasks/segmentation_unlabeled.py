"""Unlabelled training windows: a weak view of each for the teacher, a strong one for the student.

Legend: B samples, T frames per sample, H height, W width, C = 3 channels; frames are uint8.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from maskcast.data.augment.frames import GeometricTransform, draw_geometric_transform, warp_frames
from maskcast.data.augment.strong import cutmix_box, strong_colours
from maskcast.data.clip_store.frame_index import FrameIndex, spread
from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES
from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.shared_frames import EVALUATION_SPLITS, frame_hashes
from maskcast.data.unlabeled import TRAINING_CLIPS
from maskcast.distributed import rank_indices
from maskcast.errors import MaskcastError
from maskcast.progress import is_main_process, say
from maskcast.reading import pluralize
from maskcast.seed import rng
from maskcast.training.tasks.segmentation_params import SegmentationTraining, UnlabeledParams

UNLABELED, MIXED = 1, 2  # random keys for windows and for mixed rectangles
MAX_COMPARED_CLIPS = 1000  # clips of each store that are compared
CROPS = 4  # random crops, of which the one with the highest contrast is taken, as it likely shows objects


class Views(NamedTuple):
    """Two views of unlabelled windows. Samples 2k and 2k + 1 are a pair: each may show a part of the other."""

    weak_BTHWC: Tensor
    strong_BTHWC: Tensor
    cut_BHW: Tensor
    """bool: where the strong view shows the other sample of the pair."""
    weight: Tensor
    """Weight of their pseudo masks in the loss, () float32."""
    kept: tuple[Tensor, ...] = ()
    """Channels of each encoder map that are kept for the student, (B, C) bool; empty if all are kept."""


class UnlabelledWindows:
    """Windows of clips without labels or with labels of some frames only, drawn uniformly.

    Args:
        store: the clips.
        params: of the training.
        unlabeled: the part of ``params`` for unlabelled frames.
        others: clips to use instead, e.g. of another camera; their labels are ignored.

    Raises:
        MaskcastError: if there is no such clip, none is as long as a window, or the frames of ``others`` have
            another size.
    """

    def __init__(
        self,
        store: ClipStore,
        params: SegmentationTraining,
        unlabeled: UnlabeledParams,
        others: ClipStore | None = None,
    ) -> None:
        if others is not None and (others.height, others.width) != (store.height, store.width):
            raise MaskcastError(
                f"{others.root}: frames of {others.height}x{others.width}, but {store.root} has "
                f"{store.height}x{store.width}; prepare both in one size"
            )
        scored, store = store, others or store
        self.store, self.params, self.unlabeled = store, params, unlabeled
        self.length = (unlabeled.consistent_frames or 1) if params.window is None else params.window.total
        partly = bool(store.meta.get(LABELLED_FRAMES))
        seen = store.where(lambda group: (group.split, group.kind) in TRAINING_CLIPS and group.has_frames)
        self.clips = [
            clip
            for clip in seen
            if others or clip.kind == "unlabelled" or (partly and LABELLED_FRAMES in clip.meta)
        ]
        if not self.clips:
            raise MaskcastError(
                f"{store.root}: no unlabelled frames, which train_masker.unlabeled needs; it has "
                f"{store.holds()}: prepare clips of split unlabeled, or set train_masker.unlabeled to null"
            )
        if others is not None and is_main_process():  # it reads frames, and only the first process prints
            _warn_of_scored(scored, others, self.clips)
        self._index = FrameIndex(self.clips, self.length)
        if not len(self._index):
            raise MaskcastError(
                f"{store.root}: no unlabelled clip has the {pluralize(self.length, 'frame')} of a "
                "sample; lower window.frames or unlabeled.consistent_frames, or prepare longer clips"
            )

    def batch(self, step: int) -> Views:
        """Returns this process's pairs of windows: a pure function of (seed, step)."""
        pairs = [self._pair(step, index) for index in rank_indices(self.unlabeled.batch_size // 2)]
        weak, strong, cut = (torch.from_numpy(np.concatenate(layer)) for layer in zip(*pairs, strict=True))
        return Views(weak, strong, cut, torch.tensor(self.weight(step)))

    def weight(self, step: int) -> float:
        """Returns the weight of the pseudo masks in the loss."""
        done = (step - self.unlabeled.burn_in_steps + 1) / max(1, self.unlabeled.ramp_steps)
        return self.unlabeled.weight * min(1.0, done)

    def _pair(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        weak, strong = zip(*(self._sample(step, 2 * index + k) for k in range(2)), strict=True)
        weak_2THWC, strong_2THWC = np.stack(weak), np.stack(strong)
        random = rng(self.params.training.seed, step, index, MIXED)
        cut_2HW = np.zeros((2, *weak_2THWC.shape[2:4]), bool)
        for cut_HW in cut_2HW:
            if random.random() < self.unlabeled.cutmix:
                top, left, bottom, right = cutmix_box(cut_HW.shape, random)
                cut_HW[top:bottom, left:right] = True
        mixed_2THWC = np.where(cut_2HW[:, None, ..., None], strong_2THWC[::-1], strong_2THWC)
        return weak_2THWC, mixed_2THWC, cut_2HW

    def _sample(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the weak and the strong view of a window, (T, H, W, C)."""
        random = rng(self.params.training.seed, step, index, UNLABELED)
        k, t = self._index.at(int(random.integers(len(self._index))))
        frames_THWC = self.store.frames(self.clips[k])[t : t + self.length]
        weak_THWC = warp_frames(frames_THWC, self._geometry(frames_THWC[0], random))
        return weak_THWC, strong_colours(weak_THWC, self.unlabeled.strong, random)

    def _geometry(self, frame_HWC: np.ndarray, random: np.random.Generator) -> GeometricTransform:
        """Draws a window's geometry; a crop that should show an object is the one of highest contrast."""
        augment, shape = self.params.augment, frame_HWC.shape[:2]
        anywhere = augment.crop is None or random.random() >= augment.crop_on_object
        places = [draw_geometric_transform(augment, shape, None, random) for _ in range(1 if anywhere else CROPS)]
        return places[0] if anywhere else max(places, key=lambda place: _contrast(frame_HWC, place))


def _warn_of_scored(store: ClipStore, others: ClipStore, clips: Sequence[Clip]) -> None:
    """Says if clips of another store begin with a frame that this store has in a split for scores.

    Args:
        store: has the splits for scores.
        others: the other store.
        clips: its clips, which are learnt from.
    """
    found = store.where(lambda group: group.split in EVALUATION_SPLITS and group.has_frames)
    known = {one: clip for clip in spread(found, MAX_COMPARED_CLIPS) for one in frame_hashes(store.frames(clip))}
    for clip in spread(clips, MAX_COMPARED_CLIPS):
        for one in known.keys() & frame_hashes(others.frames(clip)[:1]):
            say(
                f"warning: {others.root}: clip {clip.id!r} has frames of clip {known[one].id!r} of split "
                f"{known[one].split!r} of {store.root}: what is scored on is learnt from; take it out of one store"
            )
            return


def _contrast(frame_HWC: np.ndarray, place: GeometricTransform) -> float:
    """Returns the summed standard deviations of the channels in a crop."""
    _, deviation = cv2.meanStdDev(warp_frames(frame_HWC[None], place)[0])
    return float(deviation.sum())


def own_samples(count: int) -> list[int]:
    """Returns the indices of this process's samples among ``count`` unlabelled ones: whole pairs."""
    return [2 * pair + k for pair in rank_indices(count // 2) for k in range(2)]
