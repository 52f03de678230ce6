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
        by_clip: video, clip and two scores of it, in any order.
    """
    several = len({video for video, *_ in by_clip}) > 1
    scores: dict[str, list[tuple[float, float]]] = {}
    for video, clip, *both in sorted(by_clip):
        scores.setdefault(video if several else clip, []).append((both[0], both[1]))
    return np.array([np.mean(some, axis=0) for some in scores.values()])


def surpasses(found_M2: np.ndarray, start_M2: np.ndarray) -> bool:
    """Whether videos score better than before by more than their spread explains, and no worse at the last frame.

    The mean gain must be more than ``SURE`` times its standard error; what one video gains is no evidence.

    Args:
        found_M2: of each video, ``jaccard`` and ``jaccard_last``.
        start_M2: the same of what they are compared with.
    """
    gain_M, last_M = (found_M2 - start_M2).T
    if len(gain_M) < 2 or np.nanmean(last_M) < 0:
        return False
    error = np.nanstd(gain_M, ddof=1) / math.sqrt(len(gain_M))
    return bool(np.nanmean(gain_M) > SURE * error)
