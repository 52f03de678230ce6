"""The page of a registration: the gate's verdict, and the model beside the champion.

The stage `evaluate` asks no server, so the champion is not on its page; `register_models` alone knows both.
"""

from pathlib import Path

from pydantic import BaseModel

from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.gate import Verdict
from maskcast.report.charts import line_chart
from maskcast.report.markup import Html, element, joined, table
from maskcast.report.page import Page

SCORES = ("jaccard_last", "jaccard_last_no_background", "jaccard_mean", "accuracy_last", "dice_last", "coco_AP")
HORIZON = "jaccard_h"  # and the number of a frame
CLIPS = 6  # that are listed at either end


def write_page(
    path: Path,
    ours: EvaluationRecord,
    champion: EvaluationRecord | None,
    verdict: Verdict,
    params: BaseModel,
    tags: dict[str, str],
) -> None:
    """Writes the page.

    Args:
        path: the file.
        ours: evaluation of the model that was registered.
        champion: evaluation of the champion that it was held against; None where there was none.
        verdict: what the gate said.
        params: of the stage.
        tags: where it ran, see ``provenance.run_tags``.
    """
    page = Page("register_models")
    page.section("Verdict", _verdict(verdict))
    if champion is None:
        content = element("p", "There is no champion yet, or this model is the champion.")
    elif verdict.incomparable is not None:
        content = element("p", f"Not comparable with version {verdict.champion}: {verdict.incomparable}.")
    else:
        content = _comparison(ours, champion, verdict)
    page.section("Against the champion", content)
    page.write(path, ours.scores, params, tags)


def _verdict(verdict: Verdict) -> Html:
    word, _, reasons = verdict.line.partition(":")
    lead = element("p", element("strong", word.capitalize()), f":{reasons}.")
    rows = [
        [each.score, f"{each.value:.4f}", f"{each.least:g}", "yes" if each.passed else "no"]
        for each in verdict.thresholds
    ]
    return joined([lead, table("Least scores", ["score", "reached", "asked", "passed"], rows)] if rows else [lead])


def _comparison(ours: EvaluationRecord, champion: EvaluationRecord, verdict: Verdict) -> Html:
    named = {"this model": ours, f"champion (version {verdict.champion})": champion}
    columns = [*named, "difference"]
    shared = [name for name in SCORES if name in ours.scores and name in champion.scores]
    scores = [[name, *_pair(ours.scores[name], champion.scores[name])] for name in shared]
    lines = {
        name: [
            (float(key.removeprefix(HORIZON)), value)
            for key, value in record.scores.items()
            if key.removeprefix(HORIZON).isdecimal()
        ]
        for name, record in named.items()
    }
    score = verdict.gate.score
    our_clips, their_clips = ours.per_clip[score], champion.per_clip[score]
    ranked = sorted(our_clips, key=lambda clip: our_clips[clip] - their_clips[clip])
    listed = ranked if len(ranked) <= 2 * CLIPS else ranked[:CLIPS] + ranked[-CLIPS:]
    clips = [[clip, *_pair(our_clips[clip], their_clips[clip])] for clip in listed]
    return joined(
        [
            element("p", f"{score}, mean over clips: {verdict.difference} (this model less the champion)."),
            table("Scores on the same clips", ["score", *columns], scores),
            line_chart(
                "Forecast quality by horizon", lines, x_label="frame", y_label="macro Jaccard", y_range=(0.0, 1.0)
            ),
            table(f"Clips that differ most in {score}, worst for this model first", ["clip", *columns], clips),
        ]
    )


def _pair(ours: float, theirs: float) -> list[str]:
    return [f"{ours:.4f}", f"{theirs:.4f}", f"{ours - theirs:+.4f}"]
