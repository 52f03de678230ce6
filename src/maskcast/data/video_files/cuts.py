"""Where a video changes from one shot to another."""

from collections import deque

import cv2
import numpy as np

SIDE = 32  # pixels of the thumbnail that frames are compared by
SHOT = 8  # steps of the shot that tell how much changes from frame to frame
TIMES = 2.5  # a cut changes so many times as much as the steps before it
LEAST = 0.02  # and at least so much, of 1
UNSEEN = 0.05  # what a step is taken to change in a shot of which none has been seen


class CutDetector:
    """Tells of each frame whether a new shot begins with it, from the frames up to it.

    The change of a step is the mean absolute difference of the two frames' thumbnails, of 1. A cut is a change of
    more than `LEAST` that is more than `TIMES` the median change of the last `SHOT` steps of the shot. So a
    picture that shakes raises no alarm. Fades are not found, nor cuts amid motion that changes as much.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=SHOT)

    def __call__(self, frame_HWC: np.ndarray) -> bool:
        """Returns whether a frame (H, W, 3) uint8 is the first of a new shot; the first frame of all is not."""
        seen = cv2.resize(frame_HWC, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
        before, self._before = self._before, seen
        if before is None:
            return False
        change = float(np.abs(seen - before).mean()) / 255
        usual = float(np.median(self._changes)) if self._changes else UNSEEN
        if change > max(LEAST, TIMES * usual):
            self._changes.clear()
            return True
        self._changes.append(change)
        return False
