"""Evaluations as the registry keeps them: scores, what was measured on what, and the scores of each clip."""

import csv
import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError

FORMAT = "maskcast-evaluation/1"  # of evaluation.json, which the stage evaluate writes
FILES = ("evaluation.json", "per_clip.csv")
MUST_AGREE = {
    "data": "on other clips",
    "definitions": "by other definitions of the scores",
    "context": "from another kind of context",
}


@dataclass(frozen=True)
class EvaluationRecord:
    """One evaluation.

    Args:
        place: where it was read, for errors.
        facts: evaluation.json without its scores.
        scores: all scores by name.
        per_clip: the forecaster's scores by score and clip.
        baselines: names of the other forecasters that were scored.
    """

    place: str
    facts: dict[str, Any]
    scores: dict[str, float]
    per_clip: dict[str, dict[str, float]]
    baselines: tuple[str, ...]

    @property
    def digest(self) -> str:
        """32 hex digits that name what was measured and the scores of each clip, but no timing."""
        named = {"facts": {key: self.facts.get(key) for key in MUST_AGREE}, "per_clip": self.per_clip}
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:32]

    def check_models(self, **models: Path) -> None:
        """Makes sure that these models were scored.

        Raises:
            MaskcastError: naming the model that was not.
        """
        for name, folder in models.items():
            if self.facts.get(name) != digest_tree(folder):
                raise MaskcastError(f"{self.place}: scores another {name} than {folder}; run evaluate on this one")


def read_evaluation(report: Path) -> EvaluationRecord:
    """Reads the report of the stage evaluate, or the part of it that the registry keeps.

    Raises:
        MaskcastError: if a file is missing or damaged.
    """
    path = report / "evaluation.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        scores = {name: float(value) for name, value in facts.pop("scores").items()}
        known = facts["format"] == FORMAT and facts.keys() >= MUST_AGREE.keys()
        with (report / "per_clip.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        per_clip: dict[str, dict[str, float]] = defaultdict(dict)
        for row in rows:
            if row["model"] == "forecaster":
                for name in row.keys() - {"clip", "model"}:
                    if row[name]:  # empty where no pixel of the clip has a label
                        per_clip[name][row["clip"]] = float(row[name])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MaskcastError(f"{path}: no evaluation there ({error!r}); give the report of evaluate") from None
    if not known or not per_clip:
        raise MaskcastError(f"{path}: not a {FORMAT} with scores of clips; run evaluate again")
    baselines = dict.fromkeys(row["model"] for row in rows if row["model"] != "forecaster")
    return EvaluationRecord(str(report), facts, scores, dict(per_clip), tuple(baselines))


def why_incomparable(ours: EvaluationRecord, theirs: EvaluationRecord) -> str | None:
    """Returns why two evaluations do not measure the same, or None where they do."""
    for key, text in MUST_AGREE.items():
        if ours.facts[key] != theirs.facts[key]:
            return f"scored {text} ({str(ours.facts[key])[:12]} and {str(theirs.facts[key])[:12]})"
    if ours.per_clip.keys() != theirs.per_clip.keys() or any(
        scores.keys() != theirs.per_clip[name].keys() for name, scores in ours.per_clip.items()
    ):
        return "the scores of each clip are of other clips"
    return None
