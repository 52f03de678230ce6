"""Uncertainty of forecasters' scores: each clip is scored separately, with bootstrap intervals over the clips."""

from collections.abc import Mapping
from dataclasses import dataclass

from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.evaluation.forecasts import FORECASTER
from maskcast.evaluation.paired import MIN_VIDEOS, Difference, format_interval, mean_interval, paired_difference
from maskcast.evaluation.scores import ForecastScores

HEADER = ("forecaster", "score of each clip", "mean", "forecaster minus this", "greater in")
CSV_HEADER = (
    *("model", "score", "clips", "videos", "mean", "mean_low", "mean_high"),
    *("difference", "difference_low", "difference_high", "greater"),
)
BOOTSTRAP = Bootstrap()
EXPLANATION = (
    "Each clip is scored separately and all clips have equal weight, so a mean over clips is not the pooled "
    f"score. Brackets contain {BOOTSTRAP.confidence:.0%} expanded bootstrap intervals "
    f"({BOOTSTRAP.resamples:,} resamples, seed {BOOTSTRAP.seed}). Videos are resampled, each with all of its "
    "clips; if there is only one video, its clips are resampled as if they were independent. Intervals of fewer "
    f"than {MIN_VIDEOS} videos are too narrow, and a difference over them may be chance. Intervals reflect the "
    "choice of clips, not the seed of the training."
)


@dataclass(frozen=True)
class ClipComparison:
    """A score over all clips, for one model.

    Args:
        model: name of the model.
        score: `jaccard_last`, `jaccard_mean` or `j_and_f`.
        clips: number of clips that have the score.
        videos: number of videos that the clips are from.
        interval: mean, and both ends of its interval.
        difference: the forecaster's score minus this one; None for the forecaster itself.
    """

    model: str
    score: str
    clips: int
    videos: int
    interval: tuple[float, float, float]
    difference: Difference | None

    @property
    def table_row(self) -> list[str]:
        """The row in a table with `HEADER`."""
        row = [self.model.replace("_", " "), self.score, format_interval(self.interval, self.clips)]
        if self.difference is None:
            return [*row, "-", "-"]
        return [*row, self.difference.shown(), f"{self.difference.greater} of {self.difference.count}"]

    @property
    def csv_row(self) -> list[object]:
        """The row in a CSV file with `CSV_HEADER`."""
        row = [self.model, self.score, self.clips, self.videos, *(f"{value:.6f}" for value in self.interval)]
        difference = self.difference
        if difference is None:
            return [*row, "", "", "", ""]
        return [
            *row,
            *(f"{value:.6f}" for value in (difference.mean, difference.low, difference.high)),
            difference.greater,
        ]


def clip_by_clip(scores: Mapping[str, ForecastScores], videos: Mapping[str, str]) -> list[ClipComparison]:
    """Compares a forecaster with the baselines clip by clip.

    Args:
        scores: scores of the forecaster and the baselines.
        videos: video of each clip.

    Returns:
        The scores of all models by name, the forecaster first; empty if no true mask has foreground.
    """
    if not scores[FORECASTER].foreground:
        return []
    comparisons = []
    forecaster_scores = scores[FORECASTER].per_clip()
    for name, model_scores in scores.items():
        for score, clips in model_scores.per_clip().items():
            if not clips:
                continue
            num_videos = len({videos[clip] for clip in clips})
            interval = mean_interval(clips, BOOTSTRAP, videos)
            difference = None
            if name != FORECASTER:
                difference = paired_difference(forecaster_scores[score], clips, BOOTSTRAP, "clip", videos)
            comparisons.append(ClipComparison(name, score, len(clips), num_videos, interval, difference))
    return comparisons


def comparison_sentence(comparisons: list[ClipComparison], model: str, score: str) -> str:
    """Returns a sentence on the clip-by-clip comparison with one model; empty if there is none."""
    difference = next(
        (each.difference for each in comparisons if (each.model, each.score) == (model, score)), None
    )
    if difference is None:
        return ""
    text = (
        f"Clip by clip the forecaster is above it in {difference.greater} of {difference.over}; "
        f"the mean difference is {difference.shown(3)}."
    )
    return f"{text} That may be chance." if difference.may_be_chance else text
