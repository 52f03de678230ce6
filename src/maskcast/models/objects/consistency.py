"""Classes that agree through a clip: one class for each object, whatever a masker says of it in single frames.

A masker sees one frame at a time: an object may change its class from frame to frame, and slivers of other classes
appear along its border. Here slivers go to the region that they may as well belong to, regions are linked through
time, every track gets the class of the greatest summed probability, and classes that the clip as a whole does not
support are ruled out. Nothing is assumed about the classes; several tracks may share one.

Legend: B frames of a batch, T frames of a clip, H height, W width, C = 3 colour channels, R regions of a frame,
P pixels masked as an object (or pairs of tracks and regions), N tracks, K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

REACH = 0.15  # how far a region may move between two frames, as a part of the picture's diagonal
DOUBT = 0.02  # mean probability of a larger region's class at which a smaller one beside it is a part of it
MEMORY = 2  # frames for which an object may be out of sight
SUPPORT = 0.016  # what a class must cover, summed over the frames of a clip, as a part of the picture
SPAN = 11  # frames from which on that holds; in fewer a class must cover so much less
MOST = 1024  # regions of a frame that are followed, the largest; the others keep their classes
AT_ONCE = 2**24  # numbers that are summed at once: memory is a few times as many
ALIKE = 0.05  # how alike regions of entirely different classes count: an object's class may flip


Check = Callable[[], None]  # called between pieces of work; may raise


def unchecked() -> None:
    """Checks nothing: this file runs without the rest of maskcast, too."""


@dataclass(frozen=True)
class Regions:
    """The objects in the mask of one frame, as far as one frame tells.

    Attributes:
        labels_HW: int32, the region of each pixel from 1 on; 0 is background, or an object too small to follow.
        evidence_RK: probability of each class, summed over the pixels of a region.
        centre_R2: centroids, (y, x) in pixels.
        area_R: pixels.
    """

    labels_HW: np.ndarray
    evidence_RK: np.ndarray
    centre_R2: np.ndarray
    area_R: np.ndarray


def find_regions(mask_HW: np.ndarray, probabilities_PK: np.ndarray, check: Check = unchecked) -> Regions:
    """Finds the connected regions of each class in the mask of a frame, and merges those that are parts of one.

    Args:
        mask_HW: uint8 class ids, 0 is background.
        probabilities_PK: of the P pixels that are not background, row by row.
        check: is called first.
    """
    check()
    labels_HW = np.zeros(mask_HW.shape, np.int32)
    objects_P = np.flatnonzero(mask_HW > 0)
    count = 0
    for class_id, box in _boxes(mask_HW, objects_P):
        found, found_IJ = cv2.connectedComponents((mask_HW[box] == class_id).astype(np.uint8), connectivity=8)
        labels_HW[box] += np.where(found_IJ > 0, found_IJ + count, 0)
        count += found - 1
    if count > MOST:
        labels_HW, count = _largest(labels_HW), MOST
        followed_P = labels_HW.ravel()[objects_P] > 0
        objects_P, probabilities_PK = objects_P[followed_P], probabilities_PK[followed_P]
    region_P = labels_HW.ravel()[objects_P] - 1
    class_R = np.zeros(count, np.uint8)
    class_R[region_P] = mask_HW.ravel()[objects_P]
    area_R = np.bincount(region_P, minlength=count).astype(np.float64)
    places = np.divmod(objects_P, mask_HW.shape[1])  # whole numbers: their sums are exact in any order
    centre_R2 = np.stack([np.bincount(region_P, at_P, count) / area_R for at_P in places], 1)
    regions = Regions(labels_HW, _summed(probabilities_PK, region_P, count), centre_R2, area_R)
    return _merged(regions, class_R, objects_P, region_P)


def _boxes(mask_HW: np.ndarray, objects_P: np.ndarray) -> list[tuple[int, tuple[slice, slice]]]:
    """Lists the classes of a mask, in their order, and where each lies.

    Boxes begin at even rows and columns: OpenCV numbers components by blocks of 2x2 pixels, so they keep the order
    that they have in the whole picture.

    Args:
        mask_HW: class ids.
        objects_P: which pixels, row by row, are not background.
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


def _summed(rows_PN: np.ndarray, group_P: np.ndarray, groups: int) -> np.ndarray:
    """Returns the sum of the rows of each group, float64, in their order; of at most ``MOST``, none empty."""
    order_P = np.argsort(group_P.astype(np.uint16), kind="stable")  # a radix sort
    starts = np.searchsorted(group_P[order_P], np.arange(groups))
    sums = []
    some = max(1, AT_ONCE // max(1, len(rows_PN)))
    for first in range(0, rows_PN.shape[1], some):
        part_PN = rows_PN[:, first : first + some].take(order_P, 0).astype(np.float64)
        sums.append(np.add.reduceat(part_PN, starts, axis=0))
    return np.concatenate(sums, 1)


def _largest(labels_HW: np.ndarray) -> np.ndarray:
    """Returns the ``MOST`` largest regions in their order, the others as 0."""
    area_R = np.bincount(labels_HW.ravel())[1:]
    new_R = np.zeros(len(area_R) + 1, np.int32)
    new_R[1 + np.sort(np.argsort(-area_R, kind="stable")[:MOST])] = np.arange(1, MOST + 1)
    return new_R[labels_HW]


def _merged(regions: Regions, class_R: np.ndarray, objects_P: np.ndarray, region_P: np.ndarray) -> Regions:
    """Merges regions that touch a larger one where the smaller may as well be of the larger one's class.

    Args:
        regions: of a frame.
        class_R: of each.
        objects_P: their pixels, row by row.
        region_P: in which of them each lies.
    """
    share_RK = _share(regions)
    count, (height, width) = len(class_R), regions.labels_HW.shape
    after = np.full((height + 1, width + 1), -1, np.int32)  # regions by place, beside the last ones none
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
    into_R, share_R = np.arange(count), np.full(count, DOUBT)
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
    """Makes the masks of a clip agree, as a program with nothing but numpy and OpenCV may do it.

    Args:
        masks_THW: uint8 class ids, 0 is background.
        probabilities_THWK: float32 of each class in each pixel.
        frames: the first so many agree with each other, then the next; see `agreed`.

    Returns:
        Masks (T, H, W), uint8.
    """
    regions = [
        find_regions(mask_HW, sure[mask_HW > 0])
        for mask_HW, sure in zip(masks_THW, probabilities_THWK, strict=True)
    ]
    return agreed(masks_THW, probabilities_THWK.max(-1), regions, frames)[0]


def agreed(
    masks_THW: np.ndarray, confidence_THW: np.ndarray, regions: Sequence[Regions], frames: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns masks and confidence of a clip that agree window by window, see ``make_consistent``.

    What is left at the end agrees with the frames before it: a few frames by themselves err like single ones.

    Args:
        masks_THW: uint8 class ids.
        confidence_THW: float32 probability of each pixel's class.
        regions: of each frame.
        frames: the first so many agree with each other, then the next.
    """
    masks, confidence = masks_THW.copy(), confidence_THW.copy()
    for start in range(0, len(masks_THW), frames):
        stop = min(start + frames, len(masks_THW))
        seen, new = slice(max(0, stop - frames), stop), slice(start, stop)
        found = make_consistent(masks_THW[seen], confidence_THW[seen], regions[seen])
        masks[new], confidence[new] = (each[start - stop :] for each in found)
    return masks, confidence


def make_consistent(
    masks_THW: np.ndarray, confidence_THW: np.ndarray, frames: Sequence[Regions], check: Check = unchecked
) -> tuple[np.ndarray, np.ndarray]:
    """Gives each region of a clip the class that its track has in all frames together.

    A class is ruled out where the clip shows less of it than ``SUPPORT`` (in fewer frames than ``SPAN``: less than
    their share of it), unless a track of it that lasts to the end covers the share of the frames since it came.
    The tracks of such a class get the most probable class that is left, which may be background.

    Args:
        masks_THW: uint8 class ids of consecutive frames.
        confidence_THW: float32 probability of each pixel's class.
        frames: the regions of ``masks_THW``.
        check: is called before each frame.

    Returns:
        Masks and confidence of the same form; where a region changed its class, the confidence is the mean
        probability of the new one over its pixels.
    """
    tracks, total = _link(frames, check), len(masks_THW)
    votes = [np.sum([frames[t].evidence_RK[r] for t, r in track], axis=0) for track in tracks]
    classes = [1 + int(vote_K[1:].argmax()) for vote_K in votes]
    shown_K = np.zeros(len(votes[0]) if votes else 1)
    allowed_K = np.arange(len(shown_K)) == 0
    for track, class_id in zip(tracks, classes, strict=True):
        area, came, seen = sum(frames[t].area_R[r] for t, r in track), track[0][0], track[-1][0]
        shown_K[class_id] += area
        allowed_K[class_id] |= seen == total - 1 and area >= _support(total - came, masks_THW)
    allowed_K |= shown_K >= _support(total, masks_THW)
    chosen = [np.zeros(len(regions.area_R) + 1, np.uint8) for regions in frames]  # by label, 0 is background
    for track, vote_K, class_id in zip(tracks, votes, classes, strict=True):
        if not allowed_K[class_id]:
            class_id = int(np.where(allowed_K, vote_K, -1).argmax())
        for t, r in track:
            chosen[t][r + 1] = class_id
    agreed_THW, sure_THW = masks_THW.copy(), confidence_THW.copy()
    for regions, class_R, mask_HW, sure_HW in zip(frames, chosen, agreed_THW, sure_THW, strict=True):
        places_P = np.flatnonzero(regions.labels_HW > 0)
        label_P = regions.labels_HW.ravel()[places_P]
        changed_P = class_R[label_P] != mask_HW.ravel()[places_P]
        places_P, label_P = places_P[changed_P], label_P[changed_P]
        mean_R = np.append(0, _share(regions)[np.arange(len(class_R) - 1), class_R[1:]])
        mask_HW.ravel()[places_P], sure_HW.ravel()[places_P] = class_R[label_P], mean_R[label_P]
    return agreed_THW, sure_THW


Track = list[tuple[int, int]]  # (frame, region)


def _support(frames: int, masks_THW: np.ndarray) -> float:
    """Returns the pixels that something must cover, summed over so many frames."""
    return SUPPORT * min(1, frames / SPAN) * masks_THW[0].size


def _share(regions: Regions) -> np.ndarray:
    """Mean probability of each class over the pixels of each region (R, K)."""
    return regions.evidence_RK / regions.area_R[:, None]


def _link(frames: Sequence[Regions], check: Check) -> list[Track]:
    """Links regions through time, the likeliest pairs first; each belongs to exactly one track."""
    tracks: list[Track] = []
    for t, regions in enumerate(frames):
        check()  # many small regions have very many pairs
        alive = [track for track in tracks if t - track[-1][0] <= MEMORY]
        free = set(range(len(regions.area_R)))
        for n, r in likely_pairs(alive, frames, t) if alive and free else []:
            if r in free and alive[n][-1][0] < t:
                alive[n].append((t, r))
                free.remove(r)
        tracks += [[(t, r)] for r in sorted(free)]
    return tracks


def expected(track: Track, frames: Sequence[Regions], t: int) -> np.ndarray:
    """Returns where (y, x) an object is in frame t if it goes on as it did."""
    last, r = track[-1]
    place_2: np.ndarray = frames[last].centre_R2[r]
    if len(track) > 1:
        before, s = track[-2]
        place_2 = place_2 + (place_2 - frames[before].centre_R2[s]) * (t - last) / (last - before)
    return place_2


def likely_pairs(tracks: Sequence[Track], frames: Sequence[Regions], t: int) -> list[tuple[int, int]]:
    """Lists which track a region of frame t may continue, (track, region), the likeliest first."""
    regions = frames[t]
    ends = [track[-1] for track in tracks]
    stopped_N2 = np.array([frames[s].centre_R2[r] for s, r in ends])
    going_N2 = np.array([expected(track, frames, t) for track in tracks])
    ways = [np.linalg.norm(way_N2[:, None] - regions.centre_R2, axis=2) for way_N2 in (stopped_N2, going_N2)]
    near_NR = 1 - np.minimum(*ways) / (REACH * np.hypot(*regions.labels_HW.shape))
    n_P, r_P = np.nonzero(near_NR > 0)
    area_N = np.array([frames[s].area_R[r] for s, r in ends])
    share_NK = np.array([frames[s].evidence_RK[r] for s, r in ends]) / area_N[:, None]
    area_P, other_P = regions.area_R[r_P], area_N[n_P]
    size_P = np.minimum(area_P, other_P) / np.maximum(area_P, other_P)
    alike_P = np.minimum(_share(regions)[r_P], share_NK[n_P]).sum(axis=1)
    affinity_P = near_NR[n_P, r_P] * size_P * np.maximum(alike_P, ALIKE)
    order_P = np.argsort(-affinity_P, kind="stable")
    return list(zip(n_P[order_P].tolist(), r_P[order_P].tolist(), strict=True))
