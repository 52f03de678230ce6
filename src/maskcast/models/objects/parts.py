"""Tells several objects of one class apart: connected parts of a class are tracked through time.

An object's number is its class + K n, where n is 0 for the first object of a class, 1 for the next that appears,
and so on. The numbers in a frame do not depend on later frames.

Legend: T frames of a clip, H height, W width, K classes, R regions of a frame, N objects.
"""

import numpy as np

from maskcast.models.objects.consistency import (
    MAX_MISSED_FRAMES,
    Regions,
    Track,
    find_regions,
    predict_position,
    rank_pairs,
)

MAX_NUMBERS = 255  # limit of object numbers, which are bytes; 255 means no label
MIN_SIZE = 1e-3  # area, in squared picture heights, below which a new region is assigned to a nearby object
MAX_GROWTH = 1.25  # the box around two parts of an object may be so many times its largest box


def max_objects(num_classes: int) -> int:
    """Returns how many objects of a class can be told apart; all later ones get the last number."""
    return max(1, MAX_NUMBERS // num_classes)


def number_objects(ids_THW: np.ndarray, num_classes: int) -> np.ndarray:
    """Tells the objects of each class apart.

    A region continues the object whose extrapolated place is nearest and whose size is similar. If objects of one
    class touch, each gets the pixels that are nearest to its expected place. Two parts with another object between
    them are one object if together they are no larger than it was.

    Args:
        ids_THW: class ids of consecutive frames, 0 is background; others than 0 to K - 1 count as 0.
        num_classes: K.

    Returns:
        Object numbers (T, H, W), uint8. ``number % K`` is the class; with one object per class the masks are
        unchanged.
    """
    tracker = _ObjectTracker(num_classes)
    return np.stack([tracker.update(np.where(ids_HW < num_classes, ids_HW, 0)) for ids_HW in ids_THW])


class _ObjectTracker:
    """Tracks the objects of a clip, frame by frame.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes, self._one_hot_KK = num_classes, np.eye(num_classes, dtype=np.float32)
        self._frames: list[Regions] = []
        self._tracks: list[Track] = []  # the track of each object
        self._numbers: list[int] = []
        self._sides: list[np.ndarray] = []  # size of the largest box of each object so far
        self._count_K = np.zeros(num_classes, int)

    def update(self, ids_HW: np.ndarray) -> np.ndarray:
        """Returns the numbers (H, W) of the objects in the next frame."""
        now = len(self._frames)
        alive = [n for n, track in enumerate(self._tracks) if now - track[-1][0] <= MAX_MISSED_FRAMES]
        regions = find_regions(ids_HW, self._one_hot_KK[ids_HW[ids_HW > 0]])
        regions = self._split_regions(regions, alive)
        self._frames.append(regions)
        class_R = _classes(regions)
        owner_R = np.full(len(class_R), -1)
        alive_tracks = [self._tracks[n] for n in alive]
        for a, r in rank_pairs(alive_tracks, self._frames, now) if alive_tracks and len(class_R) else []:
            n = alive[a]
            if owner_R[r] < 0 and n not in owner_R and self._numbers[n] % self._num_classes == class_R[r]:
                owner_R[r] = n
        linked_R = owner_R >= 0
        for r in np.flatnonzero(~linked_R)[np.argsort(-regions.area_R[~linked_R], kind="stable")].tolist():
            owner_R[r] = self._owner_of_part(ids_HW, r, class_R, owner_R)
        objects, labels_HW = owner_R.tolist(), regions.labels_HW
        if len(set(objects)) < len(objects):  # merges parts, so that the whole object is extrapolated
            objects = sorted(set(objects))
            labels_HW = np.append(0, 1 + np.searchsorted(objects, owner_R)).astype(np.int32)[labels_HW]
            classes = np.array([self._class(n) for n in objects])
            self._frames[now] = _measure_regions(labels_HW, classes, self._one_hot_KK)
        for r, n in enumerate(objects):
            self._tracks[n].append((now, r))
            self._sides[n] = np.maximum(self._sides[n], _sides(labels_HW == r + 1))
        number_HW = np.array([0, *(self._numbers[n] for n in objects)], np.uint8)[labels_HW]
        return np.where(labels_HW > 0, number_HW, ids_HW)  # the others are too many to track

    def _split_regions(self, regions: Regions, alive: list[int]) -> Regions:
        """Divides each region in which several of the ``alive`` objects of its class are expected."""
        now, class_R, labels_HW = len(self._frames), _classes(regions), regions.labels_HW.copy()
        height, width = labels_HW.shape
        inside: dict[int, list[int]] = {}
        places = {n: predict_position(self._tracks[n], self._frames, now) for n in alive}
        for n, place_2 in places.items():
            y, x = np.floor(place_2 + 0.5).astype(int).tolist()
            label = int(labels_HW[y, x]) if 0 <= y < height and 0 <= x < width else 0
            if label and class_R[label - 1] == self._class(n):
                inside.setdefault(label, []).append(n)
        added: list[int] = []
        for label, objects in ((label, some) for label, some in inside.items() if len(some) > 1):
            y_P, x_P = np.nonzero(regions.labels_HW == label)
            distance_NP = [np.hypot(y_P - places[n][0], x_P - places[n][1]) / self._size(n) for n in objects]
            parts, part_P = np.unique(np.argmin(distance_NP, axis=0), return_inverse=True)
            new = [label, *range(len(class_R) + len(added) + 1, len(class_R) + len(added) + len(parts))]
            labels_HW[y_P, x_P] = np.array(new, np.int32)[part_P]
            added += [int(class_R[label - 1])] * (len(parts) - 1)
        return (
            _measure_regions(labels_HW, np.append(class_R, added).astype(int), self._one_hot_KK)
            if added
            else regions
        )

    def _owner_of_part(self, ids_HW: np.ndarray, r: int, class_R: np.ndarray, owner_R: np.ndarray) -> int:
        """Returns the object that a region is a part of: one in this frame, or a new one."""
        regions = self._frames[-1]
        candidates = [s for s in np.flatnonzero(owner_R >= 0).tolist() if class_R[s] == class_R[r]]
        candidates.sort(key=lambda s: float(np.hypot(*(regions.centre_R2[s] - regions.centre_R2[r]))))
        small = regions.area_R[r] < MIN_SIZE * len(ids_HW) ** 2
        if candidates and small:
            return int(owner_R[candidates[0]])
        for s in candidates:
            n, ends = int(owner_R[s]), (regions.centre_R2[r], regions.centre_R2[s])
            both_2 = _sides(np.isin(regions.labels_HW, [r + 1, s + 1]))
            if (both_2 <= MAX_GROWTH * self._sides[n]).all() and _is_occluded_between(
                ids_HW, int(class_R[r]), *ends
            ):
                return n
        return self._add_object(int(class_R[r]))

    def _add_object(self, class_id: int) -> int:
        place = min(int(self._count_K[class_id]), max_objects(self._num_classes) - 1)
        self._count_K[class_id] += 1
        self._tracks.append([])
        self._sides.append(np.zeros(2, int))
        self._numbers.append(class_id + self._num_classes * place)
        return len(self._tracks) - 1

    def _class(self, n: int) -> int:
        return self._numbers[n] % self._num_classes

    def _size(self, n: int) -> float:
        frame, r = self._tracks[n][-1]
        return float(np.sqrt(self._frames[frame].area_R[r]))


def _classes(regions: Regions) -> np.ndarray:
    """Returns the class of each region (R,)."""
    return regions.evidence_RK.argmax(1) if len(regions.area_R) else np.zeros(0, int)


def _measure_regions(labels_HW: np.ndarray, class_R: np.ndarray, one_hot_KK: np.ndarray) -> Regions:
    """Measures the regions in ``labels_HW``, numbered from 1, which have the given classes."""
    y, x = np.nonzero(labels_HW)
    region_P, count = labels_HW[y, x] - 1, len(class_R)
    area_R = np.bincount(region_P, minlength=count).astype(np.float64)
    sums = [np.bincount(region_P, weights=axis, minlength=count) for axis in (y, x)]
    return Regions(labels_HW, one_hot_KK[class_R] * area_R[:, None], np.stack(sums, 1) / area_R[:, None], area_R)


def _sides(mask_HW: np.ndarray) -> np.ndarray:
    """Returns height and width of the box around a mask, in pixels."""
    return np.array([1 + int(np.ptp(np.flatnonzero(mask_HW.any(axis)))) for axis in (1, 0)])


def _is_occluded_between(ids_HW: np.ndarray, class_id: int, start_2: np.ndarray, end_2: np.ndarray) -> bool:
    """Whether an object of another class lies on the line between two places."""
    steps = 1 + int(np.abs(end_2 - start_2).max())
    y, x = (np.linspace(start_2[axis], end_2[axis], steps + 1).round().astype(int) for axis in (0, 1))
    line_P = ids_HW[y, x]
    return bool(((line_P > 0) & (line_P != class_id)).any())
