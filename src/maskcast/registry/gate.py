"""The gate before a model may become champion: least scores, and not worse than the champion on the same data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.registry.evaluations import EvaluationRecord, why_incomparable


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

    least: dict[str, float] = Field(default_factory=dict)
    """Least value of scores, by the names in the evaluation's metrics."""
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


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences over clips or images, ours less theirs, and its confidence interval."""

    count: int
    of: str
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}] over {self.count} {self.of}s"


@dataclass(frozen=True)
class Threshold:
    """One score and the least it must be."""

    score: str
    value: float
    least: float

    @property
    def passed(self) -> bool:
        """Whether it is reached."""
        return self.value >= self.least


@dataclass(frozen=True)
class Verdict:
    """What the gate says, with the numbers it rests on.

    Args:
        thresholds: one for each of the gate's least scores.
        champion: the version that the model was held against, None where there was none.
        difference: to the champion; None where there was none or it is not comparable.
        incomparable: why the champion cannot be compared, if so.
        gate: the gate.
        elsewhere: the champion in use, where that was scored on other data and this model begins a series.
    """

    thresholds: tuple[Threshold, ...]
    champion: int | None
    difference: Difference | None
    incomparable: str | None
    gate: Gate
    elsewhere: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the model may be promoted."""
        not_worse = self.difference is None or self.difference.low >= -self.gate.margin
        compared = self.incomparable is None or self.gate.allow_incomparable
        return not_worse and compared and all(each.passed for each in self.thresholds)

    @property
    def line(self) -> str:
        """Everything in one line."""
        parts = [
            f"{each.score} {each.value:.4f} {'>=' if each.passed else '<'} {each.least:g}"
            for each in self.thresholds
        ]
        if self.difference is not None:
            fits = ">=" if self.difference.low >= -self.gate.margin else "<"
            parts.append(
                f"{self.gate.score} against champion {self.champion}: {self.difference}, low {fits} "
                f"{-self.gate.margin:g}"
            )
        elif self.incomparable is not None:
            allowed = (
                "allowed" if self.gate.allow_incomparable else "evaluate and register the champion there, too"
            )
            parts.append(f"not comparable with champion {self.champion}: {self.incomparable}; {allowed}")
        elif self.elsewhere is not None:
            parts.append(f"first of its series: champion {self.elsewhere} was scored on other data")
        else:
            parts.append("no champion to compare with")
        return f"{'passed' if self.passed else 'failed'}: {'; '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        thresholds = [asdict(each) | {"passed": each.passed} for each in self.thresholds]
        difference = None if self.difference is None else asdict(self.difference)
        return {
            "passed": self.passed,
            "thresholds": thresholds,
            "champion": self.champion,
            "difference": difference,
            "incomparable": self.incomparable,
            "elsewhere": self.elsewhere,
            "gate": self.gate.model_dump(mode="json"),
        }


def judge(
    ours: EvaluationRecord,
    champion: int | None,
    theirs: EvaluationRecord | None,
    gate: Gate,
    *,
    elsewhere: int | None = None,
) -> Verdict:
    """Holds an evaluation against the gate.

    Args:
        ours: the evaluation of the model at the gate.
        champion: number of the version that is champion of the series, None where there is no other champion.
        theirs: its evaluation.
        gate: what to reach.
        elsewhere: the champion in use, where it is of another series and this one has none.

    Raises:
        MaskcastError: the gate names a score that was not measured, or that no clip has.
    """
    measure = ours.measure
    for name in gate.least:
        if name not in ours.scores:
            raise MaskcastError(
                f"{measure.registers}.gate.least: {name!r} was not measured; scores: "
                f"{', '.join(sorted(ours.scores))}"
            )
    if gate.score not in ours.per_item:
        raise MaskcastError(
            f"{measure.registers}.gate.score: no {measure.of} of {ours.place} has the score {gate.score}; "
            f"scores of {measure.of}s: {', '.join(sorted(ours.per_item))}"
        )
    thresholds = tuple(Threshold(name, ours.scores[name], least) for name, least in gate.least.items())
    if theirs is None:
        return Verdict(thresholds, None, None, None, gate, elsewhere)
    if (why := why_incomparable(ours, theirs)) is not None:
        return Verdict(thresholds, champion, None, why, gate)
    difference = paired_difference(ours.per_item[gate.score], theirs.per_item[gate.score], gate, measure.of)
    return Verdict(thresholds, champion, difference, None, gate)


def paired_difference(
    ours: Mapping[str, float], theirs: Mapping[str, float], bootstrap: Bootstrap, of: str
) -> Difference:
    """Bootstraps the mean difference of two models over the same clips or images, one by one.

    The interval is the percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap (1993),
    chapter 13; resampling whole clips or images keeps the pairing, and with it what both models find hard.
    """
    items = sorted(ours)
    differences = np.array([ours[item] - theirs[item] for item in items])
    rng = np.random.default_rng(bootstrap.seed)
    means = [rng.choice(differences, len(items)).mean() for _ in range(bootstrap.resamples)]
    tail = (1 - bootstrap.confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Difference(len(items), of, float(differences.mean()), float(low), float(high))
