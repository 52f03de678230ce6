"""Makes the masks of a clip consistent: one class for each object over all frames.

A masker sees one frame at a time, so an object's class may flip between frames, and slivers of other classes may
appear along its border. Here slivers are merged into adjacent regions, and regions are linked to tracks through
time. Each track gets the class of the greatest summed probability. Classes with too little support in the whole
clip are excluded, unless an object is small but certain and present in most frames. Nothing is assumed about the
classes; several tracks may have the same one.

Legend: B frames of a batch, T frames of a clip, H height, W width, C = 3 colour channels, R regions of a frame, P
foreground pixels (or pairs of tracks and regions), N tracks, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

MAX_SHIFT = 0.15  # most that a region moves between two frames, relative to the image's diagonal
# a region is merged if its mean probability of a larger neighbour's class is at least this
MIN_MERGE_PROBABILITY = 0.02
MAX_MISSED_FRAMES = 2  # frames for which an object may be invisible within a track
SUPPORT = 0.016  # area that a class must cover, summed over a clip's frames, relative to the image's
FULL_SUPPORT_FRAMES = 11  # clips with fewer frames need proportionally less support
MIN_CERTAIN_PROBABILITY = 0.7  # mean over a small object's pixels from which on its class needs no support
MAX_REGIONS = 1024  # most regions of a frame that are tracked, the largest; the others keep their classes
CHUNK_NUMBERS = 2**24  # numbers that are summed at once; memory is a few times that
MIN_SIMILARITY = 0.05  # least similarity of classes in linking, as an object's class may flip


Check = Callable[[], None]  # called between pieces of work; raises to stop it
# called for each class found in a clip, with whether it was kept and the mean probability over its pixels
Report = Callable[[int, bool, float], None]


def no_check() -> None:
    """The default check, which does nothing: this file can be used without the rest of maskcast."""


def no_report(class_id: int, kept: bool, probability: float) -> None:
    """The default report, which does nothing."""


@dataclass(frozen=True)
class Regions:
    """The regions in the mask of one frame.

    Attributes:
        labels_HW: int32, each pixel's region from 1 on; 0 is background or a region that is too small to track.
        evidence_RK: probability of each class, summed over a region's pixels.
        centre_R2: centroids, (y, x) in pixels.
        area_R: number of pixels.
    """

    labels_HW: np.ndarray
    evidence_RK: np.ndarray
    centre_R2: np.ndarray
    area_R: np.ndarray


def find_regions(mask_HW: np.ndarray, probabilities_PK: np.ndarray, check: Check = no_check) -> Regions:
    """Finds the connected regions of each class in a mask, and merges those that are parts of one object.

    Args:
        mask_HW: uint8 class ids, 0 is background.
        probabilities_PK: of the P foreground pixels, in row-major order.
        check: is called first.
    """
    check()
    labels_HW = np.zeros(mask_HW.shape, np.int32)
    objects_P = np.flatnonzero(mask_HW > 0)
    count = 0
    for class_id, box in _boxes(mask_HW, objects_P):
        num_components, component_IJ = cv2.connectedComponents(
            (mask_HW[box] == class_id).astype(np.uint8), connectivity=8
        )
        labels_HW[box] += np.where(component_IJ > 0, component_IJ + count, 0)
        count += num_components - 1
    if count > MAX_REGIONS:
        labels_HW, count = _keep_largest(labels_HW), MAX_REGIONS
        tracked_P = labels_HW.ravel()[objects_P] > 0
        objects_P, probabilities_PK = objects_P[tracked_P], probabilities_PK[tracked_P]
    region_P = labels_HW.ravel()[objects_P] - 1
    class_R = np.zeros(count, np.uint8)
    class_R[region_P] = mask_HW.ravel()[objects_P]
    area_R = np.bincount(region_P, minlength=count).astype(np.float64)
    coordinates = np.divmod(objects_P, mask_HW.shape[1])  # integers, whose sums are exact in any order
    centre_R2 = np.stack([np.bincount(region_P, at_P, count) / area_R for at_P in coordinates], 1)
    regions = Regions(labels_HW, _sum_by_group(probabilities_PK, region_P, count), centre_R2, area_R)
    return _merge_fragments(regions, class_R, objects_P, region_P)


def _boxes(mask_HW: np.ndarray, objects_P: np.ndarray) -> list[tuple[int, tuple[slice, slice]]]:
    """Returns each class of a mask, ascending, with its bounding box.

    Boxes begin at even rows and columns. OpenCV numbers components by blocks of 2x2 pixels, so their order is that
    in the whole image.

    Args:
        mask_HW: class ids.
        objects_P: flat indices of the foreground pixels.
    """
    if not len(objects_P):
        return []
    class_P = mask_HW.ravel()[objects_P]
    order_P = np.argsort(class_P, kind="stable")
    class_P = class_P[order_P]
    ys_P, xs_P = np.divmod(objects_P[order_P], mask_HW.shape[1])
    starts = np.append(0, np.flatnonzero(np.diff(class_P)) + 1)
    ends = np.append(starts[1:], len(class_P)) - 1
    sides = [ys_P[starts], ys_P[ends], np.minimum.reduceat(xs_P, starts), np.maximum.reduceat(xs_P, starts)]
    return [
        (class_id, (slice(top // 2 * 2, bottom + 1), slice(left // 2 * 2, right + 1)))
        for class_id, top, bottom, left, right in zip(
            class_P[starts].tolist(), *(s.tolist() for s in sides), strict=True
        )
    ]


def _sum_by_group(rows_PN: np.ndarray, group_P: np.ndarray, groups: int) -> np.ndarray:
    """Returns the sum of the rows of each group, float64; there are at most ``MAX_REGIONS`` groups, none empty."""
    order_P = np.argsort(group_P.astype(np.uint16), kind="stable")  # uint16 makes it a radix sort
    starts = np.searchsorted(group_P[order_P], np.arange(groups))
    sums = []
    some = max(1, CHUNK_NUMBERS // max(1, len(rows_PN)))
    for first in range(0, rows_PN.shape[1], some):
        part_PN = rows_PN[:, first : first + some].take(order_P, 0).astype(np.float64)
        sums.append(np.add.reduceat(part_PN, starts, axis=0))
    return np.concatenate(sums, 1)


def _keep_largest(labels_HW: np.ndarray) -> np.ndarray:
    """Renumbers the ``MAX_REGIONS`` largest regions in their order, and sets the others to 0."""
    area_R = np.bincount(labels_HW.ravel())[1:]
    new_R = np.zeros(len(area_R) + 1, np.int32)
    new_R[1 + np.sort(np.argsort(-area_R, kind="stable")[:MAX_REGIONS])] = np.arange(1, MAX_REGIONS + 1)
    return new_R[labels_HW]


def _merge_fragments(
    regions: Regions, class_R: np.ndarray, objects_P: np.ndarray, region_P: np.ndarray
) -> Regions:
    """Merges a region into a larger neighbour if its pixels are likely enough of the neighbour's class.

    Args:
        regions: of one frame.
        class_R: class of each region.
        objects_P: flat indices of the foreground pixels.
        region_P: region of each of these pixels.
    """
    share_RK = _class_shares(regions)
    count, (height, width) = len(class_R), regions.labels_HW.shape
    after = np.full((height + 1, width + 1), -1, np.int32)  # with a border of -1: no region
    after[:-1, :-1] = regions.labels_HW - 1
    place_P = objects_P + objects_P // width
    pairs = []
    for other_P in (after.ravel()[place_P + 1], after.ravel()[place_P + width + 1]):
        touching_P = (other_P != region_P) & (other_P >= 0)
        pairs.append(region_P[touching_P] * count + other_P[touching_P])
    first_P, second_P = np.divmod(np.unique(np.concatenate(pairs)), max(1, count))
    area_P2 = regions.area_R[np.stack([first_P, second_P], 1)]
    smaller_P = (area_P2[:, 0] < area_P2[:, 1]) | ((area_P2[:, 0] == area_P2[:, 1]) & (first_P < second_P))
    small_P, large_P = np.where(smaller_P, first_P, second_P), np.where(smaller_P, second_P, first_P)
    share_P = share_RK[small_P, class_R[large_P]]
    into_R, share_R = np.arange(count), np.full(count, MIN_MERGE_PROBABILITY)
    for small, large, share in zip(small_P.tolist(), large_P.tolist(), share_P.tolist(), strict=True):
        if share >= share_R[small]:
            into_R[small], share_R[small] = large, share
    while (into_R != into_R[into_R]).any():
        into_R = into_R[into_R]
    kept_R, new_R = np.unique(into_R, return_inverse=True)
    sums = np.zeros((len(kept_R), share_RK.shape[1] + 3))
    area_R = regions.area_R[:, None]
    np.add.at(sums, new_R, np.column_stack([regions.evidence_RK, regions.centre_R2 * area_R, area_R]))
    labels_HW = np.zeros_like(regions.labels_HW)
    labels_HW.ravel()[objects_P] = new_R[region_P] + 1
    return Regions(labels_HW, sums[:, :-3], sums[:, -3:-1] / sums[:, -1:], sums[:, -1])


def agree(masks_THW: np.ndarray, probabilities_THWK: np.ndarray, frames: int) -> np.ndarray:
    """Makes the masks of a clip consistent; for programs that have only numpy and OpenCV.

    Args:
        masks_THW: uint8 class ids, 0 is background.
        probabilities_THWK: float32, of each class in each pixel.
        frames: length of the windows that are made consistent, see `make_windows_consistent`.

    Returns:
        Masks (T, H, W), uint8.
    """
    regions = [
        find_regions(mask_HW, sure[mask_HW > 0])
        for mask_HW, sure in zip(masks_THW, probabilities_THWK, strict=True)
    ]
    return make_windows_consistent(masks_THW, probabilities_THWK.max(-1), regions, frames)[0]


def make_windows_consistent(
    masks_THW: np.ndarray, confidence_THW: np.ndarray, regions: Sequence[Regions], frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Makes masks and confidence of a clip consistent in windows, see ``make_consistent``.

    Remaining frames at the end form a window with frames before them, because few frames give little evidence.

    Args:
        masks_THW: uint8 class ids.
        confidence_THW: float32 probability of each pixel's class.
        regions: of each frame.
        frames: length of a window.
    """
    masks, confidence = masks_THW.copy(), confidence_THW.copy()
    for start in range(0, len(masks_THW), frames):
        stop = min(start + frames, len(masks_THW))
        window, new = slice(max(0, stop - frames), stop), slice(start, stop)
        consistent = make_consistent(masks_THW[window], confidence_THW[window], regions[window])
        masks[new], confidence[new] = (each[start - stop :] for each in consistent)
    return masks, confidence


def make_consistent(
    masks_THW: np.ndarray,
    confidence_THW: np.ndarray,
    frames: Sequence[Regions],
    check: Check = no_check,
    report: Report = no_report,
) -> tuple[np.ndarray, np.ndarray]:
    """Gives each region of a clip the class of its track.

    A class is excluded if it covers less than ``SUPPORT`` over the clip (proportionally less if the clip has fewer
    than ``FULL_SUPPORT_FRAMES`` frames). There are two exceptions. One is a class with a track that lasts to the
    end and has enough support for the frames since it appeared. The other is a class with a track that is in most
    frames, at least two, and certain: its pixels have a mean probability of at least ``MIN_CERTAIN_PROBABILITY``.
    Tracks of an excluded class get the most probable remaining class, which may be background.

    Args:
        masks_THW: uint8 class ids of consecutive frames.
        confidence_THW: float32 probability of each pixel's class.
        frames: the regions of ``masks_THW``.
        check: is called before each frame.
        report: is called for each class found.

    Returns:
        Masks and confidence of the same shapes and types. Where the class of a region changed, the confidence is
        the mean probability of the new class over its pixels.
    """
    tracks, total = _link(frames, check), len(masks_THW)
    votes = [np.sum([frames[t].evidence_RK[r] for t, r in track], axis=0) for track in tracks]
    classes = [1 + int(vote_K[1:].argmax()) for vote_K in votes]
    covered_K = np.zeros(len(votes[0]) if votes else 1)
    evidence_K = np.zeros_like(covered_K)
    allowed_K = np.arange(len(covered_K)) == 0
    for track, vote_K, class_id in zip(tracks, votes, classes, strict=True):
        area, first_frame, last_frame = sum(frames[t].area_R[r] for t, r in track), track[0][0], track[-1][0]
        covered_K[class_id] += area
        evidence_K[class_id] += vote_K[class_id]
        allowed_K[class_id] |= last_frame == total - 1 and area >= _support(total - first_frame, masks_THW)
        lasting = len(track) > max(1, total / 2)
        allowed_K[class_id] |= lasting and vote_K[class_id] >= MIN_CERTAIN_PROBABILITY * area
    allowed_K |= covered_K >= _support(total, masks_THW)
    for class_id in np.flatnonzero(covered_K).tolist():
        report(class_id, bool(allowed_K[class_id]), float(evidence_K[class_id] / covered_K[class_id]))
    chosen = [np.zeros(len(regions.area_R) + 1, np.uint8) for regions in frames]  # class by label
    for track, vote_K, class_id in zip(tracks, votes, classes, strict=True):
        if not allowed_K[class_id]:
            class_id = int(np.where(allowed_K, vote_K, -1).argmax())
        for t, r in track:
            chosen[t][r + 1] = class_id
    consistent_THW, changed_confidence_THW = masks_THW.copy(), confidence_THW.copy()
    for regions, class_R, mask_HW, confidence_HW in zip(
        frames, chosen, consistent_THW, changed_confidence_THW, strict=True
    ):
        pixels_P = np.flatnonzero(regions.labels_HW > 0)
        label_P = regions.labels_HW.ravel()[pixels_P]
        changed_P = class_R[label_P] != mask_HW.ravel()[pixels_P]
        pixels_P, label_P = pixels_P[changed_P], label_P[changed_P]
        mean_R = np.append(0, _class_shares(regions)[np.arange(len(class_R) - 1), class_R[1:]])
        mask_HW.ravel()[pixels_P], confidence_HW.ravel()[pixels_P] = class_R[label_P], mean_R[label_P]
    return consistent_THW, changed_confidence_THW


Track = list[tuple[int, int]]  # (frame, region)


def _support(frames: int, masks_THW: np.ndarray) -> float:
    """Returns the number of pixels that a class must cover, summed over ``frames`` frames."""
    return SUPPORT * min(1, frames / FULL_SUPPORT_FRAMES) * masks_THW[0].size


def _class_shares(regions: Regions) -> np.ndarray:
    """Returns the mean probability of each class over the pixels of each region (R, K)."""
    return regions.evidence_RK / regions.area_R[:, None]


def _link(frames: Sequence[Regions], check: Check) -> list[Track]:
    """Links regions through time, the most likely pairs first; each region belongs to exactly one track."""
    tracks: list[Track] = []
    for t, regions in enumerate(frames):
        check()  # with many small regions, a frame takes long
        alive = [track for track in tracks if t - track[-1][0] <= MAX_MISSED_FRAMES]
        free = set(range(len(regions.area_R)))
        for n, r in rank_pairs(alive, frames, t) if alive and free else []:
            if r in free and alive[n][-1][0] < t:
                alive[n].append((t, r))
                free.remove(r)
        tracks += [[(t, r)] for r in sorted(free)]
    return tracks


def predict_position(track: Track, frames: Sequence[Regions], t: int) -> np.ndarray:
    """Returns the extrapolated place (y, x) of a track in frame t."""
    last, r = track[-1]
    place_2: np.ndarray = frames[last].centre_R2[r]
    if len(track) > 1:
        previous, s = track[-2]
        place_2 = place_2 + (place_2 - frames[previous].centre_R2[s]) * (t - last) / (last - previous)
    return place_2


def rank_pairs(tracks: Sequence[Track], frames: Sequence[Regions], t: int) -> list[tuple[int, int]]:
    """Returns the candidate pairs (track, region) for frame t, the most likely first."""
    regions = frames[t]
    ends = [track[-1] for track in tracks]
    last_position_N2 = np.array([frames[s].centre_R2[r] for s, r in ends])
    predicted_N2 = np.array([predict_position(track, frames, t) for track in tracks])
    distances = [
        np.linalg.norm(position_N2[:, None] - regions.centre_R2, axis=2)
        for position_N2 in (last_position_N2, predicted_N2)
    ]
    closeness_NR = 1 - np.minimum(*distances) / (MAX_SHIFT * np.hypot(*regions.labels_HW.shape))
    n_P, r_P = np.nonzero(closeness_NR > 0)
    area_N = np.array([frames[s].area_R[r] for s, r in ends])
    share_NK = np.array([frames[s].evidence_RK[r] for s, r in ends]) / area_N[:, None]
    area_P, other_P = regions.area_R[r_P], area_N[n_P]
    size_P = np.minimum(area_P, other_P) / np.maximum(area_P, other_P)
    similarity_P = np.minimum(_class_shares(regions)[r_P], share_NK[n_P]).sum(axis=1)
    affinity_P = closeness_NR[n_P, r_P] * size_P * np.maximum(similarity_P, MIN_SIMILARITY)
    order_P = np.argsort(-affinity_P, kind="stable")
    return list(zip(n_P[order_P].tolist(), r_P[order_P].tolist(), strict=True))
