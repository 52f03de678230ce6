"""Scores of mattes: how far opacity is from the truth, and how far its changes are.

Both are defined and scaled as in Robust Video Matting (PeterL1n/RobustVideoMatting, evaluation/evaluate_lr.py);
dtSSD is that of Erofeev et al. 2015 (Perceptually motivated benchmark for video matting).

Legend: T frames, H height, W width.
"""

import numpy as np

from maskcast.errors import MaskcastError


def mad(truth_THW: np.ndarray, found_THW: np.ndarray) -> list[float]:
    """Returns the mean absolute difference of opacity in each frame, in thousandths of full opacity.

    Args:
        truth_THW: opacity, uint8, 255 = 1.
        found_THW: likewise.
    """
    difference_THW = _difference(truth_THW, found_THW)
    return (1000 * np.abs(difference_THW).mean((1, 2))).tolist()


def dtssd(truth_THW: np.ndarray, found_THW: np.ndarray) -> list[float]:
    """Returns, for each frame but the first, how far the change since the frame before is from the true one.

    It is the root of the mean squared difference of the two changes, in hundredths of full opacity.

    Args:
        truth_THW: opacity, uint8, 255 = 1.
        found_THW: likewise.
    """
    change_THW = np.diff(_difference(truth_THW, found_THW), axis=0)
    return (100 * np.sqrt(np.square(change_THW).mean((1, 2)))).tolist()


def _difference(truth_THW: np.ndarray, found_THW: np.ndarray) -> np.ndarray:
    if truth_THW.shape != found_THW.shape:
        raise MaskcastError(f"true mattes {truth_THW.shape} and found ones {found_THW.shape} differ in shape")
    return np.asarray((found_THW.astype(np.float64) - truth_THW) / 255)
