"""The page of a label budget: a chart and a row for each way to train, whatever their number."""

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

PAGE = runpy.run_path(str(Path(__file__).resolve().parents[2] / "recipes/few-labels/budget_page.py"))
Point, write_budget = PAGE["Point"], PAGE["write_budget"]


def points(*arms: str) -> list[Any]:
    return [
        Point(arm, order, percent, round(percent * 3), seed, percent / 200 + seed / 100, 2.0)
        for arm in arms
        for order in ("random", "suggested")
        for percent in (1, 10, 100)
        for seed in (0, 1)
    ]


def test_eight_ways_to_train_are_told_apart(tmp_path: Path) -> None:
    write_budget(tmp_path / "budget", points("scratch", "pretrained", "<b>", "both", "scratch, attributes"))
    text = (tmp_path / "budget.html").read_text(encoding="utf-8")
    plain, attributes = re.findall(r"<figure class=\"chart\">.*?</figure>", text)
    assert set(re.findall(r"<polyline [^>]*class=\"line (line-\d)\"", plain)) == {f"line-{k}" for k in range(8)}
    assert len(re.findall("<polyline", attributes)) == 2
    assert '<th scope="col">way to train</th>' in text and '<th scope="col"></th>' not in text
    assert '<th scope="row">&lt;b&gt;, suggested</th><td>10</td><td>30</td><td>2</td>' in text
    assert "<td>0.055</td><td>0.050 to 0.060</td><td>2.0</td>" in text


@pytest.mark.parametrize("count", [1, 2])
def test_a_comparison_that_has_just_begun_has_a_page(tmp_path: Path, count: int) -> None:
    write_budget(tmp_path / "budget", points("scratch")[:count])
    assert "<circle" in (tmp_path / "budget.html").read_text(encoding="utf-8")
