"""Draws training images: uniformly, or more often if they show rare classes."""

import numpy as np

from maskcast.data.detection.dataset import DetectionSplit


class ImageSampler:
    """Draws images with replacement.

    Args:
        split: images to draw from.
        num_classes: K.
        repeat_threshold: see :func:`repeat_factors`; None draws uniformly.
    """

    def __init__(self, split: DetectionSplit, num_classes: int, repeat_threshold: float | None) -> None:
        weights = np.ones(len(split))
        if repeat_threshold is not None:
            present_IK = np.zeros((len(split), num_classes), bool)
            for n in range(len(split)):
                present_IK[n, split.labels(n)] = True
            weights = repeat_factors(present_IK, repeat_threshold)
        self._ends = weights.cumsum()

    def draw(self, random: np.random.Generator) -> int:
        """Returns the index of an image."""
        return int(np.searchsorted(self._ends, random.uniform(0, self._ends[-1]), side="right"))


def repeat_factors(present_IK: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the repeat factor of each of I images, with which images of rare classes are drawn more often.

    r(c) = max(1, sqrt(threshold / f(c))), where f(c) is the fraction of images with class c. An image has the
    greatest r of its classes, or 1 if it has none (Gupta et al. 2019, arXiv 1908.03195, section 4).

    Args:
        present_IK: bool, whether image i has class k.
        threshold: classes in a smaller fraction of the images are drawn more often.
    """
    share_K = present_IK.mean(0)
    factor_K = np.sqrt(threshold / np.where(share_K > 0, share_K, 1)).clip(min=1)
    return np.where(present_IK, factor_K, 1).max(1)
