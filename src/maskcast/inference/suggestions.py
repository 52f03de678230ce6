"""Suggests frames to label next, by a masker's predictions for frames without labels.

Legend: N frames without labels, K classes, T frames of a clip, H height, W width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.errors import MaskcastError
from maskcast.inference.masked_frames import masked_frames
from maskcast.models.segmentation.base import Segmenter
from maskcast.seed import rng

FOREGROUND_SHARE = 2 / 3  # share of the draws of `ForegroundRandom` that first draw a class
SPLITS = ("train", "unlabeled")  # splits whose frames may be labelled for training


@dataclass(frozen=True)
class Candidates:
    """Frames without labels, with a masker's predictions.

    Attributes:
        clip_ids: of the clips.
        clip_N: index of each frame's clip.
        frame_N: its index in the clip, from 0 on.
        video_N: index of its video. Clips of one video may overlap.
        time_N: its time in the video, in units of the distance of two frames of a clip; float64.
        area_NK: number of pixels of each class, int64.
        uncertainty_NK: sum of 1 - probability over these pixels, the expected number of wrong ones; float64.
        labelled: for each video with labels, the times of its labelled frames.
    """

    clip_ids: Sequence[str]
    clip_N: np.ndarray
    frame_N: np.ndarray
    video_N: np.ndarray
    time_N: np.ndarray
    area_NK: np.ndarray
    uncertainty_NK: np.ndarray
    labelled: Mapping[int, np.ndarray]

    def __len__(self) -> int:
        return len(self.clip_N)

    def near(self, video: int, time: float, spacing: int) -> np.ndarray:
        """Returns which frames of a video are less than ``spacing`` away from a time in it, (N,) bool."""
        return (self.video_N == video) & (np.abs(self.time_N - time) < spacing)


def find_candidates(store: ClipStore, masker: Segmenter, *, batch_size: int, precision: str) -> Candidates:
    """Masks all clips that lack labels in the store's chosen map, and returns their frames without labels.

    Args:
        store: the clips; those with labels in some frames give their other frames.
        masker: predicts the map; in eval mode, on its device.
        batch_size: frames per forward pass.
        precision: ``bf16`` or ``fp32``.

    Raises:
        MaskcastError: if every frame has labels, or no clip has frames.
    """
    unlabelled = {clip.id: _unlabelled(store, clip) for clip in store.where(lambda group: group.has_frames)}
    clips = [store.get(name) for name, free_T in unlabelled.items() if free_T.any()]
    if not clips:
        raise MaskcastError(f"{store.root}: all frames of {' and '.join(SPLITS)} have labels; prepare more clips")
    areas: list[list[np.ndarray]] = [[] for _ in clips]
    uncertainties: list[list[np.ndarray]] = [[] for _ in clips]
    frames = masked_frames(
        store, masker, clips, "looking for frames to label", batch_size=batch_size, precision=precision
    )
    for frame in frames:
        ids, uncertainty = frame.mask_HW.ravel(), 1 - frame.confidence_HW.ravel()
        areas[frame.clip].append(np.bincount(ids, minlength=store.num_classes))
        uncertainties[frame.clip].append(np.bincount(ids, uncertainty, minlength=store.num_classes))
    unlabelled_masks = [unlabelled[clip.id] for clip in clips]
    counts = [int(free_T.sum()) for free_T in unlabelled_masks]
    videos = {video: k for k, video in enumerate(dict.fromkeys(clip.video for clip in clips))}
    return Candidates(
        [clip.id for clip in clips],
        np.repeat(np.arange(len(clips)), counts),
        np.concatenate([np.flatnonzero(free_T) for free_T in unlabelled_masks]),
        np.repeat([videos[clip.video] for clip in clips], counts),
        np.concatenate([_times(clip)[free_T] for clip, free_T in zip(clips, unlabelled_masks, strict=True)]),
        np.concatenate([np.array(areas[k])[free_T] for k, free_T in enumerate(unlabelled_masks)]),
        np.concatenate([np.array(uncertainties[k])[free_T] for k, free_T in enumerate(unlabelled_masks)]),
        _labelled(store, videos),
    )


def _labelled(store: ClipStore, videos: Mapping[str, int]) -> dict[int, np.ndarray]:
    """Returns for each video, by its index, the times of the frames with labels in any of its clips."""
    times_of: dict[int, list[np.ndarray]] = {}
    for clip in store.where(lambda group: group.has_frames):
        if clip.video in videos and (labelled := labelled_frames(store, clip)):
            times_of.setdefault(videos[clip.video], []).append(_times(clip)[list(labelled)])
    return {video: np.unique(np.concatenate(times)) for video, times in times_of.items()}


def _times(clip: Clip) -> np.ndarray:
    """Returns the times of a clip's frames in its video, in units of their distance, (T,)."""
    return clip.meta.get("start", 0) / clip.meta.get("stride", 1) + np.arange(clip.num_frames)


def _unlabelled(store: ClipStore, clip: Clip) -> np.ndarray:
    """Returns which frames have no labels yet, (T,) bool."""
    if clip.split not in SPLITS:
        return np.zeros(clip.num_frames, bool)
    free_T = np.ones(clip.num_frames, bool)
    free_T[list(labelled_frames(store, clip))] = False
    return free_T


class Method(ABC):
    """Base of the methods, which choose frames one by one.

    Args:
        candidates: to choose among.
        random: generator of its draws.
    """

    def __init__(self, candidates: Candidates, random: np.random.Generator) -> None:
        self.candidates, self.random = candidates, random

    @abstractmethod
    def pick(self, free_N: np.ndarray) -> int:
        """Returns the index of the next frame, one of the free frames (there is at least one)."""

    def random_choice(self, free_N: np.ndarray) -> int:
        """Returns one of the free frames, uniformly at random."""
        return int(self.random.choice(np.flatnonzero(free_N)))


class Random(Method):
    """Draws frames uniformly."""

    def pick(self, free_N: np.ndarray) -> int:
        """Returns a free frame."""
        return self.random_choice(free_N)


class ForegroundRandom(Method):
    """Draws two of three frames from those in which the masker sees a randomly drawn class; others uniformly."""

    def pick(self, free_N: np.ndarray) -> int:
        """Returns a free frame."""
        seen_NK = self.candidates.area_NK[:, 1:] > 0
        classes = np.flatnonzero(seen_NK[free_N].any(axis=0))
        if not classes.size or self.random.random() >= FOREGROUND_SHARE:
            return self.random_choice(free_N)
        return self.random_choice(free_N & seen_NK[:, self.random.choice(classes)])


class ClassUncertainty(Method):
    """The classes take turns; each takes the frame in which it is most uncertain, with added noise.

    Gumbel noise is added to the logarithm, so that a class draws a frame with probability proportional to its
    uncertainty.
    """

    def __init__(self, candidates: Candidates, random: np.random.Generator) -> None:
        super().__init__(candidates, random)
        uncertainty_NK = candidates.uncertainty_NK[:, 1:]
        noise_NK = random.gumbel(size=uncertainty_NK.shape)
        with np.errstate(divide="ignore"):  # log of 0 for absent classes
            self._noised_NK = np.log(uncertainty_NK) + noise_NK
        self._turns: list[int] = []

    def pick(self, free_N: np.ndarray) -> int:
        """Returns the first free frame for the class whose turn it is."""
        seen = np.flatnonzero(np.isfinite(self._noised_NK[free_N]).any(axis=0))
        if not seen.size:
            return self.random_choice(free_N)
        while True:
            self._turns = self._turns or self.random.permutation(seen).tolist()
            turn = self._turns.pop()
            if turn in seen:
                return int(np.where(free_N, self._noised_NK[:, turn], -np.inf).argmax())


METHODS: dict[str, type[Method]] = {
    "random": Random,
    "foreground-random": ForegroundRandom,
    "class-uncertainty": ClassUncertainty,
}


def choose(candidates: Candidates, method: str, *, budget: int, spacing: int, seed: int) -> list[int]:
    """Returns the indices of the frames to label, in the order of choice; fewer than ``budget`` if none are left.

    Args:
        candidates: to choose from.
        method: one of ``METHODS``.
        budget: number of frames.
        spacing: least distance of two chosen or labelled frames of a video, in frames of a clip.
        seed: of the draws.
    """
    picker = METHODS[method](candidates, rng(seed))
    free_N = np.ones(len(candidates), bool)
    for video, times in candidates.labelled.items():
        for time in times:
            free_N &= ~candidates.near(video, time, spacing)
    chosen: list[int] = []
    while len(chosen) < budget and free_N.any():
        n = picker.pick(free_N)
        chosen.append(n)
        free_N &= ~candidates.near(int(candidates.video_N[n]), float(candidates.time_N[n]), spacing)
    return chosen
