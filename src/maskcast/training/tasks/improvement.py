"""Tests on held-out videos whether a forecaster is surely better than with its initial weights.

Legend: M videos.
"""

import math
from collections.abc import Sequence

import numpy as np

MIN_STANDARD_ERRORS = 2.0  # the mean gain must exceed so many of its standard errors


def scores_by_video(by_clip: Sequence[tuple[str, str, float, float]]) -> np.ndarray:
    """Returns the mean scores of each video, or those of each clip if there is only one video, (M, 2).

    Args:
        by_clip: video, clip and two scores of each clip, in any order. Clips without labels or without true
            foreground have NaN, and so do videos of such clips only.
    """
    many_videos = len({video for video, *_ in by_clip}) > 1
    scores: dict[str, list[tuple[float, float]]] = {}
    for video, clip, *clip_scores in sorted(by_clip):
        scores.setdefault(video if many_videos else clip, []).append((clip_scores[0], clip_scores[1]))
    return np.array([_mean(np.array(rows)) for rows in scores.values()])


def is_significantly_better(scores_M2: np.ndarray, start_M2: np.ndarray) -> bool:
    """Whether the gain is significant over the videos, and ``jaccard_last`` is no worse.

    The mean gain must exceed ``MIN_STANDARD_ERRORS`` standard errors. A single video is no evidence. By Student's
    t, one test accepts a gain of chance with probability 0.15 for 2 videos, 0.09 for 3, 0.06 for 5 and 0.03 for
    20. A training tests each epoch, so that one of 10 passes by chance more often: with probability 0.56, 0.40,
    0.28 and 0.16, if a video's gain is normal and correlates by 0.8 from epoch to epoch.

    It is not stricter for few videos or many epochs, because weights without a gain are hardly worse than the
    initial ones. The quantile of t for 2 videos, 12.7, would refuse nearly all true gains. The error divided among
    10 epochs (Bonferroni) would refuse all epochs of 43 instead of 3 % of the trainings in which each of 5 videos
    truly gains as much as its gain varies from epoch to epoch.

    Args:
        scores_M2: ``jaccard`` and ``jaccard_last`` of each video.
        start_M2: the same with the initial weights.
    """
    gains_M2 = scores_M2 - start_M2
    gain_M, last_M = gains_M2[~np.isnan(gains_M2).any(axis=1)].T
    if len(gain_M) < 2 or last_M.mean() < 0:
        return False
    error = gain_M.std(ddof=1) / math.sqrt(len(gain_M))
    return bool(gain_M.mean() > MIN_STANDARD_ERRORS * error)


def _mean(scores_N2: np.ndarray) -> np.ndarray:
    """Returns the mean over the clips that have scores, (2,); NaN if none has."""
    known_N2 = scores_N2[~np.isnan(scores_N2).any(axis=1)]
    return known_N2.mean(axis=0) if len(known_N2) else np.full(2, np.nan)
