"""Scores of the stability of masks over time; clips are scored separately.

Legend: T frames, H height, W width.
"""

from typing import NamedTuple

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.reading import pluralize


class Flicker(NamedTuple):
    """Counts of pixels that change from one frame to the next; the counts of several clips add up."""

    errors: int
    """Pixels whose kind of error changed; the kinds are correct, and wrong with a given true class."""
    predictions: int
    """Pixels whose predicted class changed, correctly or not."""
    pixels: int
    """Pixels that were compared: those with a label in both frames."""

    def rates(self) -> tuple[float, float]:
        """Returns the shares of pixels with changed errors (FP of system 1) and changed predictions (FIP)."""
        if not self.pixels:
            return float("nan"), float("nan")
        return self.errors / self.pixels, self.predictions / self.pixels


def flicker(truth_THW: np.ndarray, prediction_THW: np.ndarray) -> Flicker:
    """Counts the flicker within a clip, as SvenGroen/Video_Segmentation does (src/gridtrainer.py).

    Args:
        truth_THW: class ids, 255 = no label.
        prediction_THW: class ids.
    """
    _check_shapes(truth_THW, prediction_THW)
    code_THW = np.where(prediction_THW != truth_THW, truth_THW.astype(np.int16) + 1, 0)
    labelled_THW = truth_THW != IGNORE
    both_THW = labelled_THW[1:] & labelled_THW[:-1]
    errors = (code_THW[1:] != code_THW[:-1]) & both_THW
    changed = (prediction_THW[1:] != prediction_THW[:-1]) & both_THW
    return Flicker(int(errors.sum()), int(changed.sum()), int(both_THW.sum()))


def consistency(truth_THW: np.ndarray, prediction_THW: np.ndarray, frames: int) -> list[float]:
    """Returns the video consistency VC of each window of ``frames`` frames of a clip; mVC is their mean.

    Among the pixels whose true class is constant in the window, it is the share whose predicted class is constant,
    too, correct or not. The scripts of VSPW (Miao et al. 2021, VC_perclip.py) count the same, except that they
    skip the last window of a clip. Shorter clips, and windows without such pixels, give no value.

    Args:
        truth_THW: class ids, 255 = no label.
        prediction_THW: class ids.
        frames: length of a window, at least 2; 8 for mVC8 and 16 for mVC16.
    """
    _check_shapes(truth_THW, prediction_THW)
    if frames < 2:
        raise MaskcastError(f"a window of {pluralize(frames, 'frame')} cannot change; give at least 2")
    scores = []
    labelled_THW = truth_THW != IGNORE
    truth_run_HW, prediction_run_HW = (np.zeros(truth_THW.shape[1:], np.int32) for _ in range(2))
    for t in range(1, len(truth_THW)):
        # for how many frames truth and prediction have been constant
        truth_run_HW = np.where((truth_THW[t] == truth_THW[t - 1]) & labelled_THW[t], truth_run_HW + 1, 0)
        prediction_run_HW = np.where(prediction_THW[t] == prediction_THW[t - 1], prediction_run_HW + 1, 0)
        if (constant_HW := truth_run_HW >= frames - 1).any():
            scores.append(float((prediction_run_HW[constant_HW] >= frames - 1).mean()))
    return scores


def _check_shapes(truth_THW: np.ndarray, prediction_THW: np.ndarray) -> None:
    if truth_THW.shape != prediction_THW.shape:
        raise MaskcastError(
            f"true masks {truth_THW.shape} and predicted ones {prediction_THW.shape} differ in shape"
        )
