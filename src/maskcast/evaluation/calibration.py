"""Calibration of confidence: of all pixels with confidence 0.8, 80 % should be right.

Legend: h horizon, H height, W width; confidence is uint8, 255 = certain.
"""

from dataclasses import dataclass, field

import numpy as np

from maskcast.labels import IGNORE

BINS = 15  # bins of equal width, as in the paper that defines the error


@dataclass
class Reliability:
    """Counts pixels, and correct pixels, by confidence.

    Args:
        objects: whether to count only pixels that are forecast as an object. (A choice by the truth would be
            biased: it includes every missed object, but no correct background.)
    """

    objects: bool = False
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    correct: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))

    def add(self, truth_hHW: np.ndarray, forecast_hHW: np.ndarray, confidence_hHW: np.ndarray) -> None:
        """Counts masks and their confidence, all uint8; pixels without a label are ignored."""
        counted = truth_hHW != IGNORE
        if self.objects:
            counted &= forecast_hHW != 0
        level = confidence_hHW[counted]
        self.pixels += np.bincount(level, minlength=256)
        self.correct += np.bincount(level[truth_hHW[counted] == forecast_hHW[counted]], minlength=256)

    def merge(self, other: "Reliability") -> None:
        """Adds the counts of another."""
        self.pixels += other.pixels
        self.correct += other.correct

    def curve(self) -> list[tuple[float, float, float]]:
        """Returns mean confidence, fraction of correct pixels and share of all pixels of each non-empty bin."""
        level = np.arange(256)
        bins = np.minimum(level * BINS // 255, BINS - 1)
        pixels, correct, confidence = (
            np.bincount(bins, weights=count) for count in (self.pixels, self.correct, self.pixels * level / 255)
        )
        return [
            (confidence[k] / pixels[k], correct[k] / pixels[k], pixels[k] / pixels.sum())
            for k in range(BINS)
            if pixels[k]
        ]

    def error(self) -> float:
        """Returns the expected calibration error (Guo et al. 2017, arXiv 1706.04599); NaN without pixels.

        It is the mean over pixels of the difference between confidence and accuracy of their bin.
        """
        if not self.pixels.any():
            return float("nan")
        return float(sum(share * abs(confidence - correct) for confidence, correct, share in self.curve()))
