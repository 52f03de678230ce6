"""Scores of mattes: errors of opacity, and of its changes over time.

Both are defined and scaled as in Robust Video Matting (PeterL1n/RobustVideoMatting, evaluation/evaluate_lr.py);
dtSSD is that of Erofeev et al. 2015 (Perceptually motivated benchmark for video matting).

Legend: T frames, H height, W width.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from maskcast.errors import MaskcastError


def mad(truth_THW: np.ndarray, prediction_THW: np.ndarray) -> list[float]:
    """Returns the mean absolute difference of opacity in each frame, in thousandths of full opacity.

    Args:
        truth_THW: opacity, uint8, 255 = 1.
        prediction_THW: likewise.
    """
    return [
        float(1000 * np.abs(difference_HW).mean()) for difference_HW in _differences(truth_THW, prediction_THW)
    ]


def dtssd(truth_THW: np.ndarray, prediction_THW: np.ndarray) -> list[float]:
    """Returns, for each frame but the first, the error of the change since the frame before.

    It is the root mean squared difference of predicted and true change, in hundredths of full opacity.

    Args:
        truth_THW: opacity, uint8, 255 = 1.
        prediction_THW: likewise.
    """
    changes = (after_HW - before_HW for before_HW, after_HW in pairwise(_differences(truth_THW, prediction_THW)))
    return [float(100 * np.sqrt(np.square(change_HW).mean())) for change_HW in changes]


def _differences(truth_THW: np.ndarray, prediction_THW: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the difference of each frame; for a whole clip, floats would take sixteen times its bytes."""
    if truth_THW.shape != prediction_THW.shape:
        raise MaskcastError(
            f"true mattes {truth_THW.shape} and predicted ones {prediction_THW.shape} differ in shape"
        )
    for truth_HW, prediction_HW in zip(truth_THW, prediction_THW, strict=True):
        yield (prediction_HW.astype(np.float64) - truth_HW) / 255
