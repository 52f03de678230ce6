"""Which training image comes next: each as likely as any other, or those with rare classes more often."""

import numpy as np

from maskcast.data.detection.dataset import DetectionSplit


class ImageSampler:
    """Draws images with replacement.

    Args:
        split: the images.
        num_classes: K.
        repeat_threshold: see :func:`repeat_factors`; None draws all images alike.
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
        """Returns the place of an image."""
        return int(np.searchsorted(self._ends, random.uniform(0, self._ends[-1]), side="right"))


def repeat_factors(present_IK: np.ndarray, threshold: float) -> np.ndarray:
    """Returns how often each of I images is drawn, relative to others, to show rare classes more often.

    r(c) = max(1, sqrt(threshold / f(c))), where f(c) is the fraction of images with class c; an image takes the
    greatest r of its classes, and 1 if it has none (Gupta et al. 2019, arXiv 1908.03195, section 4).

    Args:
        present_IK: whether class k is in image i.
        threshold: fraction of images below which a class is drawn more often.
    """
    share_K = present_IK.mean(0)
    factor_K = np.sqrt(threshold / np.where(share_K > 0, share_K, 1)).clip(min=1)
    return np.where(present_IK, factor_K, 1).max(1)
