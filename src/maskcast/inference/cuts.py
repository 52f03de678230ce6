"""Detects cuts between the shots of a video."""

from collections import deque

import cv2
import numpy as np

SIDE = 32  # pixels of the thumbnails that are compared
SHOT_STEPS = 8  # number of steps from which the usual change of a shot is computed
MIN_RATIO = 2.5  # a cut changes the picture at least this many times as much as usual
MIN_CHANGE = 0.02  # and at least this much, in 0..1
INITIAL_CHANGE = 0.05  # usual change that is assumed for a shot without steps


class CutDetector:
    """Decides for each frame, from the frames so far, whether a new shot begins with it.

    The change of a step is the mean absolute difference of the two frames' thumbnails, scaled to 0..1. A cut is a
    change above `MIN_CHANGE` and above `MIN_RATIO` times the median change of the last `SHOT_STEPS` steps of the
    shot, so shaky pictures cause no false alarms. Fades, and cuts during equally strong motion, are not found.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=SHOT_STEPS)

    def __call__(self, frame_HWC: np.ndarray) -> bool:
        """Returns whether a frame (H, W, 3) uint8 begins a new shot; the very first frame does not."""
        thumbnail = cv2.resize(frame_HWC, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
        previous, self._before = self._before, thumbnail
        if previous is None:
            return False
        change = float(np.abs(thumbnail - previous).mean()) / 255
        usual = float(np.median(self._changes)) if self._changes else INITIAL_CHANGE
        if change > max(MIN_CHANGE, MIN_RATIO * usual):
            self._changes.clear()
            return True
        self._changes.append(change)
        return False
