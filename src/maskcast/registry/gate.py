"""The gate before promotion: thresholds of scores, baselines to beat, and a comparison with the champion."""

from collections.abc import Iterator

from maskcast.errors import MaskcastError
from maskcast.evaluation.paired import paired_difference
from maskcast.registry.evaluations import EvaluationRecord, why_incomparable
from maskcast.registry.gate_params import DetectionGate, ForecastGate, Gate
from maskcast.registry.verdict import LIMITS, Check, Verdict

# Predicts the most frequent true class; a model that is not better has learned almost nothing.
ONE_CLASS = "one class everywhere"
NO_DETECTION = "no detection"  # the same for detectors, with an AP of 0


def judge(
    ours: EvaluationRecord,
    champion: int | None,
    theirs: EvaluationRecord | None,
    gate: Gate,
) -> Verdict:
    """Checks an evaluation against the gate.

    Args:
        ours: evaluation of the new model.
        champion: version number of the champion to compare with; None if there is no other champion.
        theirs: the champion's evaluation; None if the champion was scored on other data.
        gate: the requirements.

    Raises:
        MaskcastError: the gate names a score that was not measured or is undefined for all clips, or a baseline
            that was not scored.
    """
    measure = ours.measure
    thresholds: list[Check] = []
    for end, op in LIMITS.items():
        for name, limit in getattr(gate, end).items():
            if name not in ours.scores:
                raise MaskcastError(
                    f"{measure.registers}.gate.{end}: {name!r} was not measured; scores: "
                    f"{', '.join(sorted(ours.scores))}"
                )
            thresholds.append(Check(name, ours.scores[name], op, limit))
    if gate.score not in ours.per_item:
        raise MaskcastError(
            f"{measure.registers}.gate.score: no {measure.of} of {ours.place} has the score {gate.score}; "
            f"scores of {measure.of}s: {', '.join(sorted(ours.per_item)) or 'none'}"
        )
    if gate.score in ours.one_class:  # unknown to older evaluations, undefined for detectors
        constant = ours.one_class[gate.score]
        thresholds.append(Check(gate.score, ours.scores[gate.score], ">", constant, ONE_CLASS))
    if isinstance(gate, DetectionGate) and "AP" in ours.scores:
        thresholds.append(Check("AP", ours.scores["AP"], ">", 0.0, NO_DETECTION))
    thresholds += _baseline_comparisons(ours, gate) if isinstance(gate, ForecastGate) else ()
    if champion is None:
        return Verdict(thresholds, None, None, None, gate)
    if theirs is None:
        return Verdict(thresholds, champion, None, f"scored on other {measure.of}s", gate, elsewhere=champion)
    if (reason := why_incomparable(ours, theirs)) is not None:
        return Verdict(thresholds, champion, None, reason, gate)
    items = ours.per_item[gate.score], theirs.per_item[gate.score]
    difference = paired_difference(*items, gate, measure.of, ours.videos)
    arithmetic: tuple[str, str] = (ours.facts.get("arithmetic", ""), theirs.facts.get("arithmetic", ""))
    differs = all(arithmetic) and arithmetic[0] != arithmetic[1]  # unknown to older evaluations
    return Verdict(thresholds, champion, difference, None, gate, arithmetic=arithmetic if differs else None)


def _baseline_comparisons(ours: EvaluationRecord, gate: ForecastGate) -> Iterator[Check]:
    for baseline in gate.beats:
        theirs = ours.scores.get(f"{gate.score}_{baseline}")
        if theirs is None:
            raise MaskcastError(
                f"{ours.measure.registers}.gate.beats: {baseline!r} has no {gate.score} in {ours.place}; "
                f"baselines that were scored: {', '.join(ours.baselines) or 'none'}"
            )
        items, rivals = ours.per_item[gate.score], ours.baselines.get(baseline, {}).get(gate.score, {})
        difference = None
        if items.keys() == rivals.keys():
            difference = paired_difference(items, rivals, gate, ours.measure.of, ours.videos)
        yield Check(gate.score, ours.scores[gate.score], ">", theirs, baseline, difference)
