"""The verdict of a gate on a model, with the numbers on which it is based."""

import operator
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from maskcast.evaluation.paired import MIN_VIDEOS, Difference
from maskcast.registry.gate_params import Gate

REMEDY = (
    "run `maskcast models evaluate champion` and register again, set gate.allow_incomparable, or run `maskcast "
    "models promote NUMBER --force --reason TEXT` (docs/registry.md)"
)


Op = Literal[">=", "<=", ">"]
LIMITS: dict[str, Op] = {"least": ">=", "most": "<="}  # keys of the gate's limits, in params and in JSON
COMPARE: dict[Op, Callable[[float, float], bool]] = {">=": operator.ge, "<=": operator.le, ">": operator.gt}


@dataclass(frozen=True)
class Check:
    """A score with its bound.

    Args:
        name: of the score.
        value: of the model.
        op: how the value must compare with the bound.
        bound: a limit of the gate, or the score of a baseline.
        baseline: the baseline; None for a limit of the gate.
        difference: to the baseline, paired over clips; None if the report does not have the baseline's clips.
    """

    name: str
    value: float
    op: Op
    bound: float
    baseline: str | None = None
    difference: Difference | None = None

    @property
    def passed(self) -> bool:
        """Whether the score is as required."""
        return COMPARE[self.op](self.value, self.bound)

    @property
    def requirement(self) -> str:
        """The requirement, as text."""
        return f"{self.op} {self._bound}"

    @property
    def line(self) -> str:
        """Value and bound, as text: `AP 0.5000 >= 0.4`, or `AP 0.3000, required >= 0.4`."""
        text = f"{self.name} {self.value:.4f}{'' if self.passed else ', required'} {self.requirement}"
        if self.difference is None:
            return text
        chance = ", which may be chance" if self.difference.may_be_chance else ""
        return f"{text} ({self.difference.of} by {self.difference.of} {self.difference}{chance})"

    @property
    def _bound(self) -> str:
        return f"{self.bound:g}" if self.baseline is None else f"{self.bound:.4f} of {self.baseline}"

    def as_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        bound: dict[str, Any]
        if self.baseline is None:
            bound = {end: self.bound for end, op in LIMITS.items() if op == self.op}
        else:
            difference = None if self.difference is None else asdict(self.difference)
            bound = {"baseline": self.baseline, "theirs": self.bound, "difference": difference}
        return {"score": self.name, "value": self.value, **bound, "passed": self.passed}


@dataclass(frozen=True)
class Verdict:
    """The verdict of the gate, with its numbers.

    Args:
        thresholds: one for each limit of the gate, for one class everywhere, and for each baseline to beat.
        champion: the version that the model must be compared with, None if there is none.
        difference: to the champion; None if there is none or it is not comparable.
        incomparable: reason why the champion cannot be compared, if so.
        gate: the gate.
        elsewhere: the champion again, if it was scored on other data.
        arithmetic: that of the model and of the champion, if they were scored in different ones.
    """

    thresholds: Sequence[Check]
    champion: int | None
    difference: Difference | None
    incomparable: str | None
    gate: Gate
    elsewhere: int | None = None
    arithmetic: tuple[str, str] | None = None

    @property
    def passed(self) -> bool:
        """Whether the model may be promoted."""
        return self._may_replace and all(each.passed for each in self.thresholds)

    @property
    def line(self) -> str:
        """The whole verdict in one line; one that failed begins with the failures."""
        checks = [(each.passed, each.line) for each in self.thresholds]
        if self.champion is not None:
            checks.append((self._may_replace, self._comparison))
        failures, passes = ([line for passed, line in checks if passed == wanted] for wanted in (False, True))
        if failures:
            return f"failed: {'; '.join(failures)}" + (f"; passed: {'; '.join(passes)}" if passes else "")
        if self.champion is None:
            passes.append("no champion to compare with")
        return f"passed: {'; '.join(passes)}"

    @property
    def _may_replace(self) -> bool:
        """Whether the comparison with the champion, if there is one, allows to replace it."""
        if self.difference is not None:
            return self.difference.low >= -self.gate.margin
        return self.incomparable is None or self.gate.allow_incomparable

    @property
    def _comparison(self) -> str:
        """The comparison with the champion, as text."""
        if self.incomparable is not None:
            allowed = "allowed" if self.gate.allow_incomparable else REMEDY
            return f"not comparable with champion {self.champion}: {self.incomparable}; {allowed}"
        assert self.difference is not None
        text = (
            f"{self.gate.score} against champion {self.champion}: {self.difference}, low"
            f"{'' if self._may_replace else ', required'} >= {-self.gate.margin:g}"
        )
        if self.difference.videos < MIN_VIDEOS:
            samples = "images" if self.difference.of == "image" else "videos"
            text += f", which may be chance with fewer than {MIN_VIDEOS} {samples}"
        if self.arithmetic is not None:
            ours, theirs = self.arithmetic
            text += f", computed in other arithmetic ({ours}) than the champion ({theirs})"
        return text

    def as_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        difference = None if self.difference is None else asdict(self.difference)
        return {
            "passed": self.passed,
            "thresholds": [each.as_json() for each in self.thresholds],
            "champion": self.champion,
            "difference": difference,
            "incomparable": self.incomparable,
            "elsewhere": self.elsewhere,
            "gate": self.gate.model_dump(mode="json"),
        }
