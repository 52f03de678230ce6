"""Classes that agree through a clip: one class for each object, whatever a masker says of it in single frames.

A masker sees one frame at a time: an object may change its class from frame to frame, and slivers of other classes
appear along its border. Here the regions of a clip's masks are linked through time, every track gets the class of
the greatest summed probability, and classes that the clip as a whole does not support are ruled out. Nothing is
assumed about the classes; several tracks may share one.

Legend: B frames of a batch, T frames of a clip, H height, W width, C = 3 colour channels, R regions of a frame,
P pixels masked as an object, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

from maskcast.models.masker_base import classify

REACH = 0.2  # how far a region may move between two frames, as a part of the picture's diagonal
MEMORY = 2  # frames for which an object may be out of sight
SUPPORT = 0.016  # what a class must cover, summed over the frames of a clip, as a part of the picture
ALIKE = 0.05  # how alike regions of entirely different classes count: an object's class may flip


@dataclass(frozen=True)
class Regions:
    """The connected regions of one class each in the mask of one frame.

    Attributes:
        labels_HW: int32, the region of each pixel from 1 on; 0 is background.
        evidence_RK: probability of each class, summed over the pixels of a region.
        centre_R2: centroids, (y, x) in pixels.
        area_R: pixels.
    """

    labels_HW: np.ndarray
    evidence_RK: np.ndarray
    centre_R2: np.ndarray
    area_R: np.ndarray


def predict_regions(
    masker: nn.Module, frames_BHWC: np.ndarray, precision: str
) -> tuple[np.ndarray, np.ndarray, list[Regions]]:
    """Returns what ``predict_masks`` does, and the regions of each mask with the probabilities of all classes."""
    masks_BHW, confidence_BHW, logits_BHWK = classify(masker, frames_BHWC, precision)
    ends = masks_BHW.count_nonzero((1, 2)).cumsum(0)[:-1].tolist()
    probabilities = np.split(logits_BHWK[masks_BHW > 0].softmax(-1).cpu().numpy(), ends)
    masks = masks_BHW.to(torch.uint8).cpu().numpy()
    return masks, confidence_BHW.cpu().numpy(), list(map(find_regions, masks, probabilities))


def find_regions(mask_HW: np.ndarray, probabilities_PK: np.ndarray) -> Regions:
    """Finds the connected regions of each class in the mask of a frame.

    Args:
        mask_HW: uint8 class ids, 0 is background.
        probabilities_PK: of the P pixels that are not background, row by row.
    """
    labels_HW = np.zeros(mask_HW.shape, np.int32)
    for class_id in np.unique(mask_HW[mask_HW > 0]):
        _, found_HW = cv2.connectedComponents((mask_HW == class_id).astype(np.uint8), connectivity=8)
        labels_HW += np.where(found_HW > 0, found_HW + labels_HW.max(), 0)
    ys, xs = np.nonzero(labels_HW)
    sums = np.zeros((int(labels_HW.max()), probabilities_PK.shape[1] + 3))
    np.add.at(sums, labels_HW[ys, xs] - 1, np.column_stack([probabilities_PK, ys, xs, np.ones(len(ys))]))
    return Regions(labels_HW, sums[:, :-3], sums[:, -3:-1] / sums[:, -1:], sums[:, -1])


def make_consistent(
    masks_THW: np.ndarray, confidence_THW: np.ndarray, frames: Sequence[Regions]
) -> tuple[np.ndarray, np.ndarray]:
    """Gives each region of a clip the class that its track has in all frames together.

    A class is ruled out where the clip shows less of it than ``SUPPORT``; its tracks get the most probable class
    that is left, which may be background.

    Args:
        masks_THW: uint8 class ids of consecutive frames.
        confidence_THW: float32 probability of each pixel's class.
        frames: the regions of ``masks_THW``.

    Returns:
        Masks and confidence of the same form; where a region changed its class, the confidence is the mean
        probability of the new one over its pixels.
    """
    tracks = _link(frames)
    votes = [np.sum([frames[t].evidence_RK[r] for t, r in track], axis=0) for track in tracks]
    classes = [1 + int(vote_K[1:].argmax()) for vote_K in votes]
    allowed_K = np.zeros(len(votes[0]) if votes else 1, bool)
    for class_id in set(classes):
        shown = sum(
            frames[t].area_R[r] for k, track in enumerate(tracks) if classes[k] == class_id for t, r in track
        )
        allowed_K[class_id] = shown >= SUPPORT * masks_THW[0].size
    allowed_K[0] = True
    masks_THW, confidence_THW = masks_THW.copy(), confidence_THW.copy()
    for track, vote_K, class_id in zip(tracks, votes, classes, strict=True):
        if not allowed_K[class_id]:
            class_id = int(np.where(allowed_K, vote_K, -1).argmax())
        for t, r in track:
            changed_HW = (frames[t].labels_HW == r + 1) & (masks_THW[t] != class_id)
            masks_THW[t][changed_HW] = class_id
            confidence_THW[t][changed_HW] = frames[t].evidence_RK[r, class_id] / frames[t].area_R[r]
    return masks_THW, confidence_THW


Track = list[tuple[int, int]]  # (frame, region)


def _link(frames: Sequence[Regions]) -> list[Track]:
    """Links regions through time, the likeliest pairs first; each belongs to exactly one track."""
    tracks: list[Track] = []
    for t, regions in enumerate(frames):
        alive, count = [track for track in tracks if t - track[-1][0] <= MEMORY], len(regions.area_R)
        affinity_NR = np.array([_affinity(track, frames, t) for track in alive]).reshape(len(alive), count)
        free = set(range(count))
        for pair in np.argsort(-affinity_NR, axis=None, kind="stable"):
            n, r = divmod(int(pair), count)
            if affinity_NR[n, r] <= 0:
                break
            if r in free and alive[n][-1][0] < t:
                alive[n].append((t, r))
                free.remove(r)
        tracks += [[(t, r)] for r in sorted(free)]
    return tracks


def _affinity(track: Track, frames: Sequence[Regions], t: int) -> np.ndarray:
    """How well each region (R,) of frame t continues a track, 0 (not at all) to 1."""
    (last_t, last_r), regions = track[-1], frames[t]
    last = frames[last_t]
    ways = [last.centre_R2[last_r]]  # it stopped, or goes on
    if len(track) > 1:
        before_t, before_r = track[-2]
        velocity_2 = (ways[0] - frames[before_t].centre_R2[before_r]) / (last_t - before_t)
        ways.append(ways[0] + velocity_2 * (t - last_t))
    away_R = np.min([np.linalg.norm(regions.centre_R2 - way, axis=1) for way in ways], axis=0)
    near_R = 1 - away_R / (REACH * np.hypot(*regions.labels_HW.shape))
    area = last.area_R[last_r]
    size_R = np.minimum(regions.area_R, area) / np.maximum(regions.area_R, area)
    alike_R = np.minimum(regions.evidence_RK / regions.area_R[:, None], last.evidence_RK[last_r] / area).sum(
        axis=1
    )
    return np.maximum(near_R, 0) * size_R * np.maximum(alike_R, ALIKE)
