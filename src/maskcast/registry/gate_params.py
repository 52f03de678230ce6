"""Params of the gates; nothing here imports what takes long."""

from typing import Literal

from pydantic import Field

from maskcast.params import ByName, Params


class Bootstrap(Params):
    """A seeded bootstrap of paired differences."""

    confidence: float = Field(0.95, gt=0, lt=1)
    """Of the two-sided interval of the mean difference."""
    resamples: int = Field(10_000, ge=100)
    """Bootstrap samples of what was scored."""
    seed: int = Field(0, ge=0)
    """Of the bootstrap."""


class Gate(Bootstrap):
    """What a model must reach."""

    least: ByName[str, float] = Field(default_factory=dict)
    """Least value of scores, by the names in the evaluation's metrics."""
    most: ByName[str, float] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Greatest value of scores that are better when lower, likewise."""
    score: str
    """Score of each clip or image that is compared with the champion's."""
    margin: float = Field(0.01, ge=0)
    """How much worse than the champion the model may be, at the lower end of the confidence interval."""
    allow_incomparable: bool = False
    """Whether a model passes that cannot be compared, because the champion was scored by other definitions of the
    scores or from another kind of context."""


class ForecastGate(Gate):
    """What a pipeline must reach."""

    score: Literal["jaccard_last", "jaccard_mean"] = "jaccard_mean"
    """Score of each clip that is compared with the champion's."""


class DetectionGate(Gate):
    """What a detector must reach."""

    score: Literal["AP", "f1"] = "AP"
    """Score of each image that is compared with the champion's; docs/coco.md defines both."""


class VideoGate(Gate):
    """What a masker of videos must reach."""

    score: Literal["jaccard", "mvc8"] = "jaccard"
    """Score of each clip that is compared with the champion's; docs/video.md defines both."""
