"""Scores of how steady masks are through a clip; no score looks over the border of a clip.

Legend: T frames, H height, W width.
"""

from typing import NamedTuple

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.reading import counted


class Flicker(NamedTuple):
    """Pixels that changed from one frame to the next; flickers of several clips add up."""

    errors: int
    """Pixels whose kind of error changed: right, or wrong while the truth is this or that class."""
    found: int
    """Pixels whose predicted class changed, whether rightly or not."""
    pixels: int
    """Pixels that were looked at: those with a label in both frames."""

    def rates(self) -> tuple[float, float]:
        """Returns the shares of pixels: of changed errors (FP of system 1) and of changed predictions (FIP)."""
        if not self.pixels:
            return float("nan"), float("nan")
        return self.errors / self.pixels, self.found / self.pixels


def flicker(truth_THW: np.ndarray, found_THW: np.ndarray) -> Flicker:
    """Counts the flicker of a clip, as SvenGroen/Video_Segmentation does (src/gridtrainer.py), in this clip alone.

    Args:
        truth_THW: class ids, 255 = no label.
        found_THW: class ids.
    """
    _check(truth_THW, found_THW)
    code_THW = np.where(found_THW != truth_THW, truth_THW.astype(np.int16) + 1, 0)
    known_THW = truth_THW != IGNORE
    both_THW = known_THW[1:] & known_THW[:-1]
    errors = (code_THW[1:] != code_THW[:-1]) & both_THW
    changed = (found_THW[1:] != found_THW[:-1]) & both_THW
    return Flicker(int(errors.sum()), int(changed.sum()), int(both_THW.sum()))


def consistency(truth_THW: np.ndarray, found_THW: np.ndarray, frames: int) -> list[float]:
    """Returns the video consistency VC of each window of ``frames`` frames of a clip; mVC is their mean.

    It is the share of the pixels whose true class stays the same through the window at which the predicted one
    does, too, be it right or wrong. So count the scripts of VSPW (Miao et al. 2021, VC_perclip.py), but that they
    leave out the last window of a clip. A clip that is shorter, and a window without such a pixel, have none.

    Args:
        truth_THW: class ids, 255 = no label.
        found_THW: class ids.
        frames: of a window, at least 2; 8 for mVC8 and 16 for mVC16.
    """
    _check(truth_THW, found_THW)
    if frames < 2:
        raise MaskcastError(f"a window of {counted(frames, 'frame')} cannot change; give at least 2")
    scores = []
    known_THW = truth_THW != IGNORE
    steady_HW, kept_HW = (np.zeros(truth_THW.shape[1:], np.int32) for _ in range(2))
    for t in range(1, len(truth_THW)):
        # for how many frames truth and prediction have been what they are
        steady_HW = np.where((truth_THW[t] == truth_THW[t - 1]) & known_THW[t], steady_HW + 1, 0)
        kept_HW = np.where(found_THW[t] == found_THW[t - 1], kept_HW + 1, 0)
        if t >= frames - 1 and (common_HW := steady_HW >= frames - 1).any():
            scores.append(float((kept_HW[common_HW] >= frames - 1).mean()))
    return scores


def _check(truth_THW: np.ndarray, found_THW: np.ndarray) -> None:
    if truth_THW.shape != found_THW.shape:
        raise MaskcastError(f"true masks {truth_THW.shape} and found ones {found_THW.shape} differ in shape")
