"""Confidence intervals of means over clips, and of paired differences of two models.

The intervals are expanded percentile intervals (Hesterberg, What Teachers Should Know About the Bootstrap, The
American Statistician 69, 2015). The plain percentile interval is too narrow for few samples: at 95 % and 6 samples
it misses the mean in 12 % of all cases. Clips of one video show the same objects and may overlap, so they are not
independent samples. Therefore whole videos are resampled (hierarchical data in Davison and Hinkley, Bootstrap
Methods and their Application, 1997, chapter 3).

Legend: N clips or images, V videos, R resamples.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.reading import pluralize

CHUNK = 1_000_000  # random numbers drawn at once
# Fewest videos for a conclusion. No bootstrap interval is wider than the range of the videos, and 5 videos lie on
# the same side of 0 by chance with probability 2 / 2 ** 5 > 1 / 20.
MIN_VIDEOS = 6


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences (ours - theirs) over clips or images, and its confidence interval.

    Args:
        count: number of clips or images.
        of: `clip` or `image`.
        mean: of the differences.
        low: lower end of the interval.
        high: upper end of the interval.
        greater: number of clips or images on which ours is greater.
        videos: number of their videos.
    """

    count: int
    of: str
    mean: float
    low: float
    high: float
    greater: int
    videos: int

    @property
    def may_be_chance(self) -> bool:
        """Whether the interval contains 0 or there are few videos; false if both models are equal on each clip."""
        equal = self.low == self.high == 0
        return not equal and (self.low <= 0 <= self.high or self.videos < MIN_VIDEOS)

    @property
    def over(self) -> str:
        """Text that says what was scored."""
        of_videos = f" of {pluralize(self.videos, 'video')}" if self.videos < self.count else ""
        return f"{pluralize(self.count, self.of)}{of_videos}"

    def shown(self, digits: int = 4) -> str:
        """Returns the mean with its interval, as text."""
        return format_interval((self.mean, self.low, self.high), self.count, f"+.{digits}f")

    def __str__(self) -> str:
        return f"{self.shown()} over {self.over}, greater in {self.greater}"


def paired_difference(
    candidate: Mapping[str, float],
    reference: Mapping[str, float],
    bootstrap: Bootstrap,
    of: str,
    videos: Mapping[str, str] | None = None,
) -> Difference:
    """Bootstraps the mean paired difference of two models over the same clips or images.

    Clips or images are resampled together with both scores, so that their difficulty, which both models share,
    cancels out.

    Args:
        candidate: score of each clip or image.
        reference: score of the other model for the same clips or images.
        bootstrap: confidence, resamples and seed.
        of: `clip` or `image`.
        videos: see `mean_interval`.
    """
    differences = {item: value - reference[item] for item, value in candidate.items()}
    mean, low, high = mean_interval(differences, bootstrap, videos)
    greater = sum(value > 0 for value in differences.values())
    return Difference(
        len(candidate), of, mean, low, high, greater, len(_indices_by_video(sorted(candidate), videos))
    )


def mean_interval(
    scores: Mapping[str, float], bootstrap: Bootstrap, videos: Mapping[str, str] | None = None
) -> tuple[float, float, float]:
    """Returns the mean of the scores, and both ends of its interval.

    Args:
        scores: of each clip or image.
        bootstrap: confidence, resamples and seed.
        videos: video of each clip or image; one that is missing counts as a video of its own. All clips of a video
            are resampled together. With a single video its clips are resampled instead, as if they were
            independent.
    """
    items = sorted(scores)
    by_video = _indices_by_video(items, videos)
    groups = list(by_video.values()) if len(by_video) > 1 else [[n] for n in range(len(items))]
    values_N = np.array([scores[item] for item in items])
    sums_V = np.array([values_N[group].sum() for group in groups])
    counts_V = np.array([len(group) for group in groups])
    rng, means, remaining = np.random.default_rng(bootstrap.seed), [], bootstrap.resamples
    while remaining:
        size = min(remaining, max(1, CHUNK // len(groups)))
        drawn_RV = rng.integers(0, len(groups), (size, len(groups)))
        means.append(sums_V[drawn_RV].sum(1) / counts_V[drawn_RV].sum(1))
        remaining -= size
    tail = expanded_tail(bootstrap.confidence, len(groups))
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(values_N.mean()), float(low), float(high)


def format_interval(interval: tuple[float, float, float], count: int, spec: str = ".4f") -> str:
    """Returns a mean as text, with its interval in brackets if there is more than one clip or image."""
    mean, low, high = (format(value, spec) for value in interval)
    return f"{mean} [{low}, {high}]" if count > 1 else mean


def expanded_tail(confidence: float, count: int) -> float:
    """Returns the probability that the interval leaves out at either end of the resampled means.

    A t interval is wider than a percentile interval of normal samples by the quantile of t, and because resampling
    underestimates the variance by (V - 1) / V. The probability makes up for both.

    Args:
        confidence: level of the interval.
        count: V, the number of samples.
    """
    if count == 1:
        return 0.5  # all resampled means are equal
    return NormalDist().cdf(-math.sqrt(count / (count - 1)) * _t_quantile(confidence, count - 1))


def _t_quantile(confidence: float, freedom: int) -> float:
    """Returns t with P(|T| < t) = ``confidence`` for Student's T with ``freedom`` degrees of freedom.

    Bisects the finite series of the distribution in the angle atan(t / sqrt(freedom)) (Abramowitz and Stegun,
    26.7.3 and 26.7.4).
    """
    odd = freedom % 2
    k = np.arange(1, (freedom - odd) // 2)
    terms = np.cumprod(np.concatenate([[1.0], (2 * k - 1 + odd) / (2 * k + odd)]))
    powers = 2 * np.arange(len(terms)) + odd
    low, high = 0.0, math.pi / 2
    while low < (angle := (low + high) / 2) < high:
        inside = math.sin(angle) * float(terms @ math.cos(angle) ** powers) if freedom > 1 else 0.0
        if odd:
            inside = 2 / math.pi * (angle + inside)
        if inside < confidence:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(angle)


def _indices_by_video(items: list[str], videos: Mapping[str, str] | None) -> dict[str, list[int]]:
    """Returns the indices of the items of each video."""
    indices: dict[str, list[int]] = {}
    for n, item in enumerate(items):
        indices.setdefault((videos or {}).get(item, item), []).append(n)
    return indices
