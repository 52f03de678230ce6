"""Params of the gates; nothing here has slow imports."""

import re
from typing import ClassVar, Literal, get_args

from pydantic import Field, field_validator

from maskcast.evaluation.bootstrap_params import Bootstrap
from maskcast.evaluation.definitions import (
    AMODAL_VIDEOS,
    DAVIS,
    DETECTIONS,
    FORECASTS,
    FORECASTS_DAVIS,
    FOREGROUND,
    FUTURES,
    score_names,
)
from maskcast.params import ByName
from maskcast.spelling import suggestion

Baseline = Literal["persistence", "constant_velocity", "rigid_body"]  # scored beside a forecaster


class Gate(Bootstrap):
    """What a model must reach."""

    scores: ClassVar[tuple[str, ...]]
    """What an evaluation may measure; `<n>` stands for a number, `<map>` for the name of a label map or group."""
    rivals: ClassVar[tuple[str, ...]] = ()
    """Models that are scored in the same evaluation: names of their scores end in theirs."""
    least: ByName[str, float] = Field(default_factory=dict)
    """Minimum values of scores, by their names in the evaluation's metrics."""
    most: ByName[str, float] = Field(default_factory=dict)
    """Maximum values of scores that are better when lower, likewise."""
    score: str
    """Per-clip or per-image score that is compared with the champion's."""
    margin: float = Field(0.01, ge=0)
    """How much worse than the champion the model may be, measured at the lower end of the confidence interval."""
    allow_incomparable: bool = False
    """Whether to pass a model that cannot be compared, because the champion was scored on other data, with other
    definitions of the scores or from another kind of context."""

    @field_validator("least", "most")
    @classmethod
    def _known_scores(cls, named: dict[str, float]) -> dict[str, float]:
        """Rejects scores that no evaluation measures, before any training."""
        scores = "|".join(re.escape(score) for score in cls.scores).replace("<n>", r"\d+").replace("<map>", r"\w+")
        ends = "|".join(["", *(f"_{rival}" for rival in cls.rivals)])
        for name in named:
            if not re.fullmatch(f"({scores})({ends})", name):
                raise ValueError(f"{name!r} is not a score that is measured; {suggestion(name, cls.scores)}")
        return named


class ForecastGate(Gate):
    """What a pipeline must reach."""

    scores = (*score_names(FORECASTS | FORECASTS_DAVIS | FUTURES), "clips")
    rivals = get_args(Baseline)
    score: Literal["jaccard_last", "jaccard_mean"] = "jaccard_mean"
    """Score that is compared per clip with the champion's, and over all clips with the baselines'."""
    beats: tuple[Baseline, ...] = ("persistence", "constant_velocity")
    """Baselines that the forecaster must outscore: `persistence` (a copy of the last mask), `constant_velocity`
    and `rigid_body`; `[]` requires none. One class everywhere must always be outscored."""


class DetectionGate(Gate):
    """What a detector must reach."""

    scores = score_names(DETECTIONS)
    score: Literal["AP", "f1"] = "AP"
    """Per-image score that is compared with the champion's; docs/coco.md defines both."""


class VideoGate(Gate):
    """What a masker of videos must reach."""

    scores = (*score_names(AMODAL_VIDEOS | DAVIS | FOREGROUND), "clips", "frames")
    rivals = ("base",)
    score: Literal["jaccard", "mvc8"] = "jaccard"
    """Per-clip score that is compared with the champion's; docs/video.md defines both."""
