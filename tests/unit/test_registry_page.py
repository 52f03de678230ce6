"""The page of a registration: this model beside the champion, on the same clips or not at all."""

from pathlib import Path

import pytest

from maskcast.registry.evaluations import FORECASTS, EvaluationRecord
from maskcast.registry.gate import judge
from maskcast.registry.gate_params import ForecastGate
from maskcast.registry.page import write_page
from maskcast.registry.store import Version

CLIPS = [f"clip_{n}" for n in range(20)]


def record(offset: float, *, data: str = "d" * 32) -> EvaluationRecord:
    """An evaluation in which clip n scores n / 100 + offset, clip 7 more by 0.5 times the offset."""
    per_clip = {clip: n / 100 + offset * (1.5 if n == 7 else 1) for n, clip in enumerate(CLIPS)}
    per_clip = {"<b>": per_clip.pop("clip_7")} | per_clip
    scores = {"jaccard_last": 0.4 + offset, "jaccard_h12": 0.8 + offset, "jaccard_h13": 0.7 + offset}
    facts = {"data": data, "definitions": "x", "context": "generated"}
    return EvaluationRecord("report", FORECASTS, facts, scores, {"jaccard_mean": per_clip}, {})


def page(folder: Path, ours: EvaluationRecord, champion: EvaluationRecord | None, *aliases: str) -> str:
    gate = ForecastGate(least={"jaccard_last": 0.5}, margin=0.1, beats=())
    verdict = judge(ours, None if champion is None else 3, champion, gate)
    tags = {"maskcast.name": "register_models", "maskcast.git_sha": "abc", "maskcast.data_hash.report": "def"}
    model = Version("maskcast", 4, "run", 0, {}, aliases)
    write_page(folder / "page.html", model, ours, champion, verdict, gate, tags)
    return (folder / "page.html").read_text()


def test_the_model_stands_beside_the_champion(tmp_path: Path) -> None:
    text = page(tmp_path, record(0.2), record(0.1))
    assert "maskcast version 4 <strong>passed</strong>: jaccard_last 0.6000 &gt;= 0.5" in text
    assert '<th scope="col">champion 3</th>' in text
    assert '<th scope="row">jaccard_last</th><td>0.6000</td><td>0.5000</td><td>+0.1000</td>' in text
    assert '<th scope="row">12</th><td>1</td><td>0.9</td>' in text  # of the chart
    assert '<th scope="row">&lt;b&gt;</th><td>0.3700</td><td>0.2200</td><td>+0.1500</td>' in text
    assert text.count('<th scope="row">clip_') == 11  # and clip_7's: six at either end
    assert '<th scope="row">input report</th><td class="text">def</td>' in text


def test_a_difference_that_may_be_chance_is_said(tmp_path: Path) -> None:
    said = "That may be chance: these clips do not separate the two models."
    assert said not in page(tmp_path, record(0.2), record(0.1))
    ours, theirs = record(0.1), record(0.1)
    ours.per_item["jaccard_mean"]["clip_3"] += 0.1
    ours.per_item["jaccard_mean"]["clip_4"] -= 0.1
    assert said in page(tmp_path, ours, theirs)


@pytest.mark.parametrize(
    ("champion", "said"),
    [
        (None, "There is no champion yet"),
        (record(0.1, data="e" * 32), "Not comparable with version 3: scored on other clips"),
    ],
)
def test_no_comparison_without_the_same_clips(
    tmp_path: Path, champion: EvaluationRecord | None, said: str
) -> None:
    text = page(tmp_path, record(0.0), champion)
    assert said in text
    assert "<strong>failed</strong>: jaccard_last 0.4000, required &gt;= 0.5" in text
    assert '<td>0.4000</td><td class="text">&gt;= 0.5</td><td class="text">no</td>' in text
    assert "Clips that differ" not in text
    if champion is None:
        assert "This model is the champion." in page(tmp_path, record(0.0), None, "champion")
