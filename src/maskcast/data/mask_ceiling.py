"""What masks lose when they are reduced to the size of the clips: the best score at the size of the source.

Legend: T frames, H height, W width of the source; K classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.images import resize_masks
from maskcast.data.sources.base import RawClip
from maskcast.labels import IGNORE, LabelMap

MAX_MASKS = 200  # whose loss is measured, drawn evenly
MAX_CLASSES = 3  # that are named
LEAST_LOSS = 0.005  # that is said
STEP = 8  # rows and columns from one pixel to the next that shows whether a frame has labels


def masks_to_measure(clips: Iterable[RawClip]) -> Iterator[int]:
    """Yields how many masks of each clip are measured, in order: at most ``MAX_MASKS`` of all labelled clips."""
    labelled = sum(clip.kind == "labelled" for clip in clips)
    before = 0
    for clip in clips:
        number = before + (clip.kind == "labelled")
        yield (number * MAX_MASKS - 1) // max(1, labelled) - (before * MAX_MASKS - 1) // max(1, labelled)
        before = number


def round_trip(masks_THW: np.ndarray, size: tuple[int, int], num_classes: int, most: int) -> np.ndarray:
    """Returns a confusion matrix (K, K) int64 of true masks (rows) and the same reduced and enlarged (columns).

    Args:
        masks_THW: class ids; ``IGNORE``, and ids of K and more, which the writer refuses, are not counted.
        size: height and width to which they are reduced, by nearest neighbour.
        num_classes: K.
        most: number of labelled frames to use, drawn evenly.
    """
    counts = np.zeros(num_classes**2, np.int64)
    known = np.flatnonzero((masks_THW[:, ::STEP, ::STEP] != IGNORE).any((1, 2)))
    for k in evenly_spaced(len(known), most, ends=False):
        truth = masks_THW[known[k]][None]
        again = resize_masks(resize_masks(truth, *size), *truth.shape[1:])
        valid = (np.maximum(truth, again) < num_classes) & (truth != IGNORE) & (again != IGNORE)
        pairs = truth[valid].astype(np.intp) * num_classes + again[valid]
        counts += np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


class MaskCeilings:
    """Sums the round trips of many clips, and says what they lose.

    Args:
        maps: label maps of the clips.
    """

    def __init__(self, maps: Sequence[LabelMap]) -> None:
        self._counts = {
            each: np.zeros((each.num_classes,) * 2, np.int64) for each in maps if each.kind == "classes"
        }

    def add(self, round_trips: Mapping[str, np.ndarray]) -> None:
        """Adds the confusion matrices of a clip, by map (see ``round_trip``)."""
        for label_map, counts_KK in self._counts.items():
            counts_KK += round_trips.get(label_map.name, 0)

    def notes(self, height: int, width: int) -> Iterator[str]:
        """Yields a line for each map whose masks lose more than a little, given the size of the clips.

        It has the best Jaccard at the size of the source, and the classes that lose most.
        """
        for label_map, counts_KK in self._counts.items():
            hits_K = counts_KK.diagonal()
            union_K = counts_KK.sum(0) + counts_KK.sum(1) - hits_K
            jaccard = {int(k): float(hits_K[k] / union_K[k]) for k in np.flatnonzero(union_K)}
            if not jaccard or (mean := sum(jaccard.values()) / len(jaccard)) > 1 - LEAST_LOSS:
                continue
            lossy = [k for k in sorted(jaccard, key=lambda k: jaccard[k]) if jaccard[k] <= 1 - LEAST_LOSS]
            names = ", ".join(f"{label_map.classes[k]} {jaccard[k]:.2f}" for k in lossy[:MAX_CLASSES])
            yield (
                f"true masks of {label_map.name} at {height}x{width}, enlarged again, have Jaccard {mean:.3f} at "
                f"the source's size (lowest: {names}); a greater height and width keep more"
            )
