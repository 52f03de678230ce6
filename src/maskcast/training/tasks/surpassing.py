"""Whether a forecaster is surely better than its start, by videos that it did not learn from.

Legend: M videos.
"""

import math
from collections.abc import Sequence

import numpy as np

SURE = 2.0  # standard errors of the mean gain by which other weights must be better than the start


def by_video(by_clip: Sequence[tuple[str, str, float, float]]) -> np.ndarray:
    """Returns the mean scores of each video, or those of each clip where there is but one video, (M, 2).

    Args:
        by_clip: video, clip and two scores of it, in any order; those of a clip without labels are NaN, and so
            are those of a video of such clips.
    """
    several = len({video for video, *_ in by_clip}) > 1
    scores: dict[str, list[tuple[float, float]]] = {}
    for video, clip, *both in sorted(by_clip):
        scores.setdefault(video if several else clip, []).append((both[0], both[1]))
    return np.array([_mean(np.array(some)) for some in scores.values()])


def surpasses(found_M2: np.ndarray, start_M2: np.ndarray) -> bool:
    """Whether videos score better than before by more than their spread explains, and no worse at the last frame.

    The mean gain must be more than ``SURE`` times its standard error; what one video gains is no evidence.

    Args:
        found_M2: of each video, ``jaccard`` and ``jaccard_last``.
        start_M2: the same of what they are compared with.
    """
    both_M2 = found_M2 - start_M2
    gain_M, last_M = both_M2[~np.isnan(both_M2).any(axis=1)].T
    if len(gain_M) < 2 or last_M.mean() < 0:
        return False
    error = gain_M.std(ddof=1) / math.sqrt(len(gain_M))
    return bool(gain_M.mean() > SURE * error)


def _mean(scores_N2: np.ndarray) -> np.ndarray:
    """Returns the mean of the clips that have scores, (2,); NaN without any."""
    known_N2 = scores_N2[~np.isnan(scores_N2).any(axis=1)]
    return known_N2.mean(axis=0) if len(known_N2) else np.full(2, np.nan)
