"""Optical flow between two pictures: OpenCV's DIS (Kroeger et al. 2016, arXiv 1603.03590).

Legend: H height, W width.
"""

import cv2
import numpy as np

SHORT_SIDE = 216  # pixels: in smaller pictures the flow of small objects is lost
LONG_SIDE = 2048  # pixels: pictures are not enlarged beyond this
MIN_SIDE = 16  # pixels: OpenCV fails if a side is shorter


def upscale_factor(height: int, width: int) -> int:
    """Returns by how much to enlarge pictures for optical flow: an integer, so that mask pixels stay whole."""
    return max(1, min(-(-SHORT_SIDE // min(height, width)), LONG_SIDE // max(height, width)))


class OpticalFlow:
    """Computes optical flow; not thread-safe."""

    def __init__(self) -> None:
        self._method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, first_HW: np.ndarray, second_HW: np.ndarray) -> np.ndarray:
        """Returns the displacement (x, y) of each pixel from the first to the second picture, (H, W, 2) float32.

        For pictures that are too narrow, all displacements are 0.

        Args:
            first_HW: uint8.
            second_HW: uint8.
        """
        if min(first_HW.shape) < MIN_SIDE:
            return np.zeros((*first_HW.shape, 2), np.float32)
        return self._method.calc(first_HW, second_HW, None)
