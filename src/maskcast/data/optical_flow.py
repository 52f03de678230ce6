"""Optical flow between two pictures: DIS (Kroeger et al. 2016, arXiv 1603.03590), as OpenCV has it.

Legend: H height, W width.
"""

import cv2
import numpy as np

SHORT_SIDE = 216  # pixels: below it, flow of small things is lost
LONG_SIDE = 2048  # pixels: pictures are not made larger than that
LEAST = 16  # pixels: OpenCV finds no flow where a side is shorter


def enlargement(height: int, width: int) -> int:
    """Returns by which whole factor, so that pixels of masks stay whole, pictures are enlarged for their flow."""
    return max(1, min(-(-SHORT_SIDE // min(height, width)), LONG_SIDE // max(height, width)))


class OpticalFlow:
    """Finds flow; not for two threads at once."""

    def __init__(self) -> None:
        self._method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def between(self, first_HW: np.ndarray, second_HW: np.ndarray) -> np.ndarray:
        """Returns where each pixel of a picture went in another, (H, W, 2) float32, x and y in pixels.

        In strips that are too narrow all rests.

        Args:
            first_HW: uint8.
            second_HW: uint8.
        """
        if min(first_HW.shape) < LEAST:
            return np.zeros((*first_HW.shape, 2), np.float32)
        return self._method.calc(first_HW, second_HW, None)
