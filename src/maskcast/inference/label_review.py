"""Finds labels that are probably wrong: those that a masker contradicts confidently.

The idea is confident learning (Northcutt et al., arXiv 1911.00068), which cleanlab applies to masks (Lad and
Mueller, arXiv 2307.05080); FiftyOne's mistakenness is similar. A masker is confident of a class where its
confidence is at least the mean over the pixels on whose class label and prediction agree, so that no threshold has
to be chosen.

Legend: K classes, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskcast.data.clip_store.labelled_frames import labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.inference.masked_frames import masked_frames
from maskcast.labels import IGNORE
from maskcast.models.segmentation.base import Segmenter

LEVELS = 64  # to which confidence is rounded, so that a frame is kept as a few counts
MIN_AREA = 0.005  # of the frame: smaller objects count as if they had this area, so that specks do not come first


@dataclass(frozen=True)
class LabelIssue:
    """A labelled frame that the masker contradicts.

    Attributes:
        clip_id: id of the clip.
        t: index of the frame.
        score: expected share of wrong pixels among those that are an object in label or prediction, 0..1.
        pixels: expected number of wrong pixels.
        confused: class of the label, class of the prediction and expected number of wrong pixels, the most first.
    """

    clip_id: str
    t: int
    score: float
    pixels: float
    confused: Sequence[tuple[int, int, float]]


@dataclass(frozen=True)
class Review:
    """The result of a review.

    Attributes:
        issues: the most suspicious frames first.
        num_frames: number of labelled frames that were reviewed.
        thresholds_K: confidence from which on the masker is confident of a class; above 1, that is never, for
            classes on which label and prediction agree nowhere.
    """

    issues: Sequence[LabelIssue]
    num_frames: int
    thresholds_K: np.ndarray


def review_labels(
    store: ClipStore, masker: Segmenter, clips: Sequence[Clip], *, batch_size: int, precision: str
) -> Review:
    """Masks clips and compares their labels; a frame that several clips of a video share is reviewed once.

    Args:
        store: the clips, and their labels in the chosen map.
        masker: predicts the map; in eval mode, on its device.
        clips: with labels and frames.
        batch_size: frames per forward pass.
        precision: ``bf16`` or ``fp32``.
    """
    wanted = _each_once(store, clips)
    labels: tuple[int, np.ndarray] | None = None  # of the clip that is being reviewed, by its index
    counts: list[tuple[str, int, np.ndarray]] = []
    agreed_KL = np.zeros((store.num_classes, LEVELS), np.int64)
    frames = masked_frames(store, masker, clips, "reviewing labels", batch_size=batch_size, precision=precision)
    for frame in frames:
        if frame.t not in wanted[frame.clip]:
            continue
        clip = clips[frame.clip]
        if labels is None or labels[0] != frame.clip:
            labels = frame.clip, store.masks(clip)
        counted = _count(labels[1][frame.t], frame.mask_HW, frame.confidence_HW, store.num_classes)
        label, predicted, level, count = counted
        same = label == predicted
        np.add.at(agreed_KL, (label[same], level[same]), count[same])
        counts.append((clip.id, frame.t, counted))
    agreed_K = agreed_KL.sum(axis=1)
    means_K = (agreed_KL * _confidence(np.arange(LEVELS))).sum(axis=1) / np.maximum(agreed_K, 1)
    thresholds_K = np.where(agreed_K > 0, means_K - 1e-6, 2.0)  # less than a level: equal ones must pass
    area = MIN_AREA * store.height * store.width
    found = [_issue(clip_id, t, counted, thresholds_K, area) for clip_id, t, counted in counts]
    ranked = sorted((one for one in found if one.score > 0), key=lambda one: -one.score)
    return Review(ranked, len(counts), thresholds_K)


def doubted_pixels(
    label_HW: np.ndarray, mask_HW: np.ndarray, confidence_HW: np.ndarray, thresholds_K: np.ndarray
) -> np.ndarray:
    """Returns the pixels whose label the masker contradicts confidently, (H, W) bool."""
    sure_HW = _confidence(_level(confidence_HW)) >= thresholds_K[mask_HW]
    doubted_HW: np.ndarray = (label_HW != IGNORE) & (label_HW != mask_HW) & sure_HW
    return doubted_HW


def _each_once(store: ClipStore, clips: Sequence[Clip]) -> list[set[int]]:
    """Returns the labelled frames of each clip, without those that an earlier clip of the video shows."""
    seen: set[tuple[str, int]] = set()
    wanted = []
    for clip in clips:
        numbers = clip.video_frames
        own = set()
        for t in labelled_frames(store, clip):
            frame = (clip.id, t) if numbers is None else (clip.video, numbers[t])
            if frame not in seen:
                own.add(t)
            seen.add(frame)
        wanted.append(own)
    return wanted


def _count(label_HW: np.ndarray, mask_HW: np.ndarray, confidence_HW: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns label, prediction, level of confidence and number of pixels of each combination, (4, N) int64."""
    known_HW = label_HW != IGNORE
    label, predicted = label_HW[known_HW].astype(np.int64), mask_HW[known_HW].astype(np.int64)
    code = (label * num_classes + predicted) * LEVELS + _level(confidence_HW[known_HW])
    codes, counts = np.unique(code, return_counts=True)
    return np.stack([codes // LEVELS // num_classes, codes // LEVELS % num_classes, codes % LEVELS, counts])


def _level(confidence: np.ndarray) -> np.ndarray:
    return (confidence.astype(np.float32) * LEVELS).astype(np.int64).clip(0, LEVELS - 1)


def _confidence(level: np.ndarray) -> np.ndarray:
    """Returns the middle of the confidences of a level."""
    middle: np.ndarray = (level + 0.5) / LEVELS
    return middle


def _issue(clip_id: str, t: int, counted: np.ndarray, thresholds_K: np.ndarray, min_area: float) -> LabelIssue:
    label, predicted, level, count = counted
    confidence = _confidence(level)
    doubted = (label != predicted) & (confidence >= thresholds_K[predicted])
    expected = count * confidence
    area = max(int(count[(label > 0) | (predicted > 0)].sum()), min_area)
    pairs: dict[tuple[int, int], float] = {}
    for n in np.flatnonzero(doubted):
        pair = int(label[n]), int(predicted[n])
        pairs[pair] = pairs.get(pair, 0.0) + float(expected[n])
    confused = sorted(((*pair, pixels) for pair, pixels in pairs.items()), key=lambda one: -one[2])
    wrong = float(expected[doubted].sum())
    return LabelIssue(clip_id, t, wrong / area, wrong, confused)
