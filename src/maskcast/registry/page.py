"""The HTML page of a registration: the gate's verdict, and a comparison with the champion.

Evaluating stages use no server, so the champion is not on their pages. Registering stages know both models.
"""

from pathlib import Path

from pydantic import BaseModel

from maskcast.markup import Html, concatenate, element, table
from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.store import CHAMPION, Version
from maskcast.registry.verdict import Verdict
from maskcast.report.charts import line_chart
from maskcast.report.page import Page

HORIZON = "jaccard_h"  # followed by the number of a frame
LISTED = 6  # clips or images listed at each end


def write_page(
    path: Path,
    model: Version,
    ours: EvaluationRecord,
    champion: EvaluationRecord | None,
    verdict: Verdict,
    params: BaseModel,
    tags: dict[str, str],
) -> None:
    """Writes the page.

    Args:
        path: the file.
        model: the registered version.
        ours: its evaluation.
        champion: evaluation of the champion, None if the model was not compared with one.
        verdict: of the gate.
        params: of the stage.
        tags: facts about the run, see ``provenance.run_tags``.
    """
    page = Page(tags["maskcast.name"])
    page.section("Verdict", _verdict(model, verdict))
    if verdict.incomparable is not None:
        content = element("p", f"Not comparable with version {verdict.champion}: {verdict.incomparable}.")
    elif champion is None:
        text = "This model is the champion." if CHAMPION in model.aliases else "There is no champion yet."
        content = element("p", text)
    else:
        content = _comparison(ours, champion, verdict)
    page.section("Comparison with the champion", content)
    page.write(path, ours.scores, params, tags)


def _verdict(model: Version, verdict: Verdict) -> Html:
    word, _, reasons = verdict.line.partition(":")
    lead = element("p", f"{model.name} version {model.number} ", element("strong", word), f":{reasons}.")
    rows = [
        [each.name, f"{each.value:.4f}", each.requirement, "yes" if each.passed else "no"]
        for each in verdict.thresholds
    ]
    return concatenate(
        [lead, table("Thresholds of the gate", ["score", "value", "required", "passed"], rows)] if rows else [lead]
    )


def _comparison(ours: EvaluationRecord, champion: EvaluationRecord, verdict: Verdict) -> Html:
    named = {"this model": ours, f"champion {verdict.champion}": champion}
    columns, of, score = [*named, "difference"], ours.measure.of, verdict.gate.score
    shared = [name for name in ours.measure.headline if name in ours.scores and name in champion.scores]
    scores = [[name, *_pair(ours.scores[name], champion.scores[name])] for name in shared]
    our_items, their_items = ours.per_item[score], champion.per_item[score]
    ranked = sorted(our_items, key=lambda item: our_items[item] - their_items[item])
    listed = ranked if len(ranked) <= 2 * LISTED else ranked[:LISTED] + ranked[-LISTED:]
    items = [[item, *_pair(our_items[item], their_items[item])] for item in listed]
    lead = f"{score}, mean over {of}s: {verdict.difference} (this model minus the champion)."
    if verdict.difference is not None and verdict.difference.may_be_chance:
        lead += f" That may be chance: these {of}s do not separate the two models."
    parts = [
        element("p", lead),
        table(f"Scores on the same {of}s", ["score", *columns], scores),
        table(
            f"{of.capitalize()}s that differ most in {score}, worst for this model first", [of, *columns], items
        ),
    ]
    lines = {name: _horizon(record) for name, record in named.items()}
    if any(lines.values()):
        chart = line_chart(
            "Forecast quality by horizon", lines, x_label="frame", y_label="macro Jaccard", y_range=(0.0, 1.0)
        )
        parts.insert(2, chart)
    return concatenate(parts)


def _horizon(record: EvaluationRecord) -> list[tuple[float, float]]:
    """Returns the score of each forecast frame; empty for models that are not forecasters."""
    return [
        (float(key.removeprefix(HORIZON)), value)
        for key, value in record.scores.items()
        if key.removeprefix(HORIZON).isdecimal()
    ]


def _pair(ours: float, theirs: float) -> list[str]:
    return [f"{ours:.4f}", f"{theirs:.4f}", f"{ours - theirs:+.4f}"]
