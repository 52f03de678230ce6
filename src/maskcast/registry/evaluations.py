"""Evaluations in the registry: facts, scores, and scores of each clip or image."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskcast.digest import digest_json, digest_tree
from maskcast.errors import MaskcastError
from maskcast.evaluation import record as evaluation_record
from maskcast.reading import parsing, read_json, read_text

RECORD = "evaluation.json"


@dataclass(frozen=True)
class Measure:
    """The form of evaluations of one kind of model.

    Args:
        format: identifier in evaluation.json.
        stage: name of the evaluating stage.
        registers: name of the registering stage.
        each: columns of scores in the table of individual scores.
        headline: scores that become tags of a version and are compared on the page.
        listed: those of ``headline`` that ``models list`` shows.
        of: what is scored individually.
        key: the table's column of ids.
        about: facts that become tags of a version.
        also_equal: facts that must be equal for a comparison, besides data and definitions; with the message if
            they are not.
    """

    format: str
    stage: str
    registers: str
    each: tuple[str, ...]
    headline: tuple[str, ...]
    listed: tuple[str, ...]
    of: str = "clip"
    key: str = "clip"
    about: tuple[str, ...] = ("data", "clip_store", "mask_store")
    also_equal: Mapping[str, str] = field(default_factory=dict)

    @property
    def must_agree(self) -> dict[str, str]:
        """Facts that must be equal for a comparison of two evaluations, with the message if they are not."""
        shared = {"data": f"on other {self.of}s", "definitions": "by other definitions of the scores"}
        return shared | dict(self.also_equal)

    @property
    def table(self) -> str:
        """CSV file with individual scores."""
        return f"per_{self.of}.csv"

    @property
    def files(self) -> tuple[str, str]:
        """The files of a report that the registry stores."""
        return RECORD, self.table


FORECASTS = Measure(
    format=evaluation_record.FORECASTS,
    stage="evaluate",
    registers="register_models",
    each=("jaccard_last", "jaccard_mean"),
    headline=(
        "jaccard_last",
        "jaccard_last_no_background",
        "jaccard_last_absent_zero",
        "jaccard_mean",
        "j_and_f",
        "accuracy_last",
        "dice_last",
        "coco_AP",
        "masker_jaccard",
    ),
    listed=("jaccard_last", "jaccard_mean"),
    also_equal={"context": "from another kind of context"},
)
DETECTIONS = Measure(
    format=evaluation_record.DETECTIONS,
    stage="evaluate_detector",
    registers="register_detector",
    each=("AP", "f1"),
    headline=("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100"),
    listed=("AP", "AP50"),
    of="image",
    key="id",
    about=("data", "dataset"),
)
VIDEOS = Measure(
    format=evaluation_record.VIDEOS,
    stage="evaluate_video",
    registers="register_segmenter",
    each=("jaccard", "flicker", "mvc8"),
    headline=(
        "jaccard",
        "jaccard_no_background",
        "j_and_f",
        "flicker",
        "mvc8",
        "mvc16",
        "dice",
        "accuracy",
        "jaccard_gain",
        "flicker_ratio",
        "miou",
        "miou_occluded",
    ),
    listed=("jaccard", "flicker"),
)
MEASURES = (FORECASTS, DETECTIONS, VIDEOS)


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation.

    Args:
        place: path of its report, for errors.
        measure: form of the evaluation.
        facts: evaluation.json without scores.
        scores: all scores by name.
        per_item: the model's individual scores, by score and then by clip or image.
        baselines: the same for other scored models, by name.
        videos: video of each clip, if the report has it.
        one_class: scores of predicting the most frequent true class everywhere, if the report has them.
    """

    place: str
    measure: Measure
    facts: dict[str, Any]
    scores: dict[str, float]
    per_item: dict[str, dict[str, float]]
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]]
    videos: Mapping[str, str] = field(default_factory=dict)
    one_class: Mapping[str, float] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Digest (32 hex digits) of facts and individual scores, without timings."""
        agreed = {key: self.facts.get(key) for key in self.measure.must_agree}
        named = {"facts": agreed, f"per_{self.measure.of}": self.per_item}
        return digest_json(named)

    def check_models(self, **models: Path) -> None:
        """Checks that these models were scored.

        Raises:
            MaskcastError: a model was not scored; the message names it.
        """
        for name, folder in models.items():
            if self.facts.get(name) != digest_tree(folder):
                raise MaskcastError(
                    f"{self.place}: has scores of another {name}, not of {folder}; run {self.measure.stage} on it"
                )


def read_evaluation(report: Path, expected: tuple[Measure, ...] = MEASURES) -> EvaluationRecord:
    """Reads the report of an evaluation, or the part of it that the registry stores.

    Args:
        report: the folder.
        expected: accepted forms of evaluations.

    Raises:
        MaskcastError: if a file is missing or damaged, or the evaluation has another form.
    """
    path = report / RECORD
    stages = " or ".join(each.stage for each in expected)
    formats = " or ".join(f"{each.format} with scores of {each.of}s" for each in expected)
    other = MaskcastError(f"{path}: not a {formats}; run {stages} again")
    facts = read_json(path, "evaluation", f"give the report of {stages}")
    with parsing(path, "an evaluation", f"give the report of {stages}"):
        scores = {name: float(value) for name, value in facts.pop("scores").items()}
        one_class = {name: float(value) for name, value in facts.pop("one_class", {}).items()}
        measure = next((each for each in expected if each.format == facts["format"]), None)
        if measure is None or not facts.keys() >= measure.must_agree.keys():
            raise other
        text = read_text(report / measure.table, "table of scores", "evaluate again")
        rows = list(csv.DictReader(io.StringIO(text)))
        per_item = _per_item(rows, measure, None)
        names = {name: None for row in rows if (name := _baseline(row)) is not None}
        baselines = {name: _per_item(rows, measure, name) for name in names}
        videos = {row[measure.key]: row["video"] for row in rows if row.get("video")}
    if not rows or not rows[0].keys() & set(measure.each):
        raise other
    return EvaluationRecord(str(report), measure, facts, scores, per_item, baselines, videos, one_class)


def _per_item(rows: list[dict[str, str]], measure: Measure, baseline: str | None) -> dict[str, dict[str, float]]:
    """Returns the scores of the model (``baseline`` None) or of a baseline; cells without a score are empty."""
    of_model = [row for row in rows if _baseline(row) == baseline]
    scores = {name: {row[measure.key]: float(row[name]) for row in of_model if row[name]} for name in measure.each}
    return {name: by_item for name, by_item in scores.items() if by_item}


def _baseline(row: Mapping[str, str]) -> str | None:
    """Returns the name of the baseline that a table row scores, or None for the model."""
    model = row.get("model", "forecaster")
    return None if model == "forecaster" else model


def why_incomparable(ours: EvaluationRecord, theirs: EvaluationRecord) -> str | None:
    """Returns why two evaluations cannot be compared, or None if they can."""
    if ours.measure != theirs.measure:
        return f"scored by {ours.measure.stage} and by {theirs.measure.stage}"
    for key, text in ours.measure.must_agree.items():
        if ours.facts[key] != theirs.facts[key]:
            return f"scored {text} ({str(ours.facts[key])[:12]} and {str(theirs.facts[key])[:12]})"
    if ours.per_item.keys() != theirs.per_item.keys() or any(
        scores.keys() != theirs.per_item[name].keys() for name, scores in ours.per_item.items()
    ):
        return f"scores per {ours.measure.of} are of different {ours.measure.of}s"
    return None
