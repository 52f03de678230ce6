"""Masks in the size of the video, from a model's output in its own, smaller size.

Legend: I rows, J columns of the model's output; H, W of the video; Q classes that occur; P pixels.
"""

import numpy as np

from maskcast.inference.predictions import ClassLogits

PIXELS_AT_ONCE = 2**13  # their scores stay in the processor's cache


def enlarge_classes(mask_IJ: np.ndarray, scores: ClassLogits, height: int, width: int) -> np.ndarray:
    """Returns the class of each pixel, (H, W) uint8, after bilinear interpolation of the classes' scores.

    Only classes that are the best of some given pixel occur in the result. Between four pixels with the same best
    class, that class is the best everywhere, so only pixels at a border between classes are interpolated. This is
    fast and needs no memory for all scores of all pixels.

    Args:
        mask_IJ: uint8, the class of the greatest score.
        scores: of the classes in the mask.
        height: height of the result.
        width: width of the result.
    """
    rows, columns = mask_IJ.shape
    top_H, bottom_H, down_H = _neighbours(rows, height)
    left_W, right_W, across_W = _neighbours(columns, width)
    below_IJ = np.concatenate([mask_IJ[1:], mask_IJ[-1:]])
    mixed_IJ = mask_IJ != below_IJ
    for each_IJ in (mask_IJ, below_IJ):
        mixed_IJ[:, :-1] |= mask_IJ[:, :-1] != each_IJ[:, 1:]
    ids_HW = mask_IJ[:, left_W][top_H]
    pixels_P = np.flatnonzero(mixed_IJ[:, left_W][top_H])
    scores_NQ = scores.logits.reshape(rows * columns, -1)
    out = ids_HW.reshape(-1)
    for start in range(0, len(pixels_P), PIXELS_AT_ONCE):
        pixels = pixels_P[start : start + PIXELS_AT_ONCE]
        y_P, x_P = np.divmod(pixels, width)
        upper_PQ, lower_PQ = (
            _between(scores_NQ[row_P + left_W[x_P]], scores_NQ[row_P + right_W[x_P]], across_W[x_P, None])
            for row_P in (top_H[y_P] * columns, bottom_H[y_P] * columns)
        )
        best_P = _between(upper_PQ, lower_PQ, down_H[y_P, None]).argmax(1)
        out[pixels] = scores.classes[best_P]
    return ids_HW


def _between(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns the values at a share of the way from the first to the second, overwriting the second."""
    second -= first
    second *= share
    second += first
    return second


def _neighbours(size: int, new_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the old pixels before and after each new one, and its share of the way between their centres."""
    centres = np.clip((np.arange(new_size) + 0.5) * size / new_size - 0.5, 0, size - 1)
    before = centres.astype(np.intp)
    return before, np.minimum(before + 1, size - 1), (centres - before).astype(np.float32)
