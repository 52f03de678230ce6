"""What masks lose when they are reduced to the size of the clips, counted on a few (``evaluation.mask_ceiling``).

Legend: T frames, H height, W width of the source; K classes.
"""

from collections.abc import Iterable, Iterator

import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.images import resize_masks
from maskcast.data.sources.base import RawClip
from maskcast.labels import IGNORE

MAX_MASKS = 200  # whose loss is measured, drawn evenly
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
