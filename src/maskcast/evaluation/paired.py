"""How sure a mean over clips is, and the difference of two models that scored the same clips.

The intervals are the percentile intervals of Efron and Tibshirani, An Introduction to the Bootstrap (1993),
chapter 13. Clips of one video show the same objects and may overlap, so they are no independent samples: whole
videos are resampled (hierarchical data in Davison and Hinkley, Bootstrap Methods and their Application, 1997,
chapter 3).

Legend: N clips or images, V videos, R resamples.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.reading import counted

AT_ONCE = 1_000_000  # numbers that are drawn at once
FEWEST = 6  # videos that may tell: all of fewer agree by chance in more than one of 20 cases, 2 of 2 ** 5


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences over clips or images, ours less theirs, and its confidence interval.

    Args:
        count: of the clips or images.
        of: what they are.
        mean: of their differences.
        low: end of the interval.
        high: the other one.
        greater: clips or images on which ours is greater.
        videos: that they are of.
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
        """Whether the interval holds zero or is of few videos; not where the two are equal on each clip."""
        equal = self.low == self.high == 0
        return not equal and (self.low <= 0 <= self.high or self.videos < FEWEST)

    @property
    def over(self) -> str:
        """What was scored, in words."""
        of_videos = f" of {counted(self.videos, 'video')}" if self.videos < self.count else ""
        return f"{counted(self.count, self.of)}{of_videos}"

    def shown(self, digits: int = 4) -> str:
        """Returns the mean with its interval."""
        return bracketed((self.mean, self.low, self.high), self.count, f"+.{digits}f")

    def __str__(self) -> str:
        return f"{self.shown()} over {self.over}, greater in {self.greater}"


def paired_difference(
    ours: Mapping[str, float],
    theirs: Mapping[str, float],
    bootstrap: Bootstrap,
    of: str,
    videos: Mapping[str, str] | None = None,
) -> Difference:
    """Bootstraps the mean difference of two models over the same clips or images, one by one.

    Resampling whole clips or images keeps the pairing, and with it what both models find hard.

    Args:
        ours: a score of each.
        theirs: the same of the other model, of the same ones.
        bootstrap: confidence, resamples and seed.
        of: what is scored, `clip` or `image`.
        videos: see `mean_interval`.
    """
    differences = {item: value - theirs[item] for item, value in ours.items()}
    mean, low, high = mean_interval(differences, bootstrap, videos)
    greater = sum(value > 0 for value in differences.values())
    return Difference(len(ours), of, mean, low, high, greater, len(_videos(sorted(ours), videos)))


def mean_interval(
    scores: Mapping[str, float], bootstrap: Bootstrap, videos: Mapping[str, str] | None = None
) -> tuple[float, float, float]:
    """Returns the mean of the scores of clips or images, and both ends of its interval.

    Args:
        scores: of each clip or image.
        bootstrap: confidence, resamples and seed.
        videos: of which video each is; one that is not named is by itself. All clips of a video are resampled
            together. Where there is but one video the clips are, which takes them for independent.
    """
    items = sorted(scores)
    own = _videos(items, videos)
    groups = list(own.values()) if len(own) > 1 else [[n] for n in range(len(items))]
    values_N = np.array([scores[item] for item in items])
    sums_V = np.array([values_N[group].sum() for group in groups])
    counts_V = np.array([len(group) for group in groups])
    rng, means, left = np.random.default_rng(bootstrap.seed), [], bootstrap.resamples
    while left:
        some = min(left, max(1, AT_ONCE // len(groups)))
        drawn_RV = rng.integers(0, len(groups), (some, len(groups)))
        means.append(sums_V[drawn_RV].sum(1) / counts_V[drawn_RV].sum(1))
        left -= some
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(values_N.mean()), float(low), float(high)


def bracketed(interval: tuple[float, float, float], count: int, spec: str = ".4f") -> str:
    """Returns a mean, and in brackets both ends of its interval: of a single clip or image there is none."""
    mean, low, high = (format(value, spec) for value in interval)
    return f"{mean} [{low}, {high}]" if count > 1 else mean


def _videos(items: list[str], videos: Mapping[str, str] | None) -> dict[str, list[int]]:
    """Returns the places of the items of each video."""
    found: dict[str, list[int]] = {}
    for n, item in enumerate(items):
        found.setdefault((videos or {}).get(item, item), []).append(n)
    return found
