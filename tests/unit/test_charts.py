"""Line charts: points where their numbers say, and the numbers as a table."""

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from maskcast.report.charts import MAX_POINTS, MAX_ROWS, WIDTH, line_chart
from maskcast.report.page_style import STYLE


def parsed(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(chart)  # every element is closed


def line(chart: str, n: int = 0) -> list[tuple[float, float]]:
    found = parsed(chart).findall(f".//polyline[@class='line line-{n}']")
    return [tuple(map(float, pair.split(","))) for pair in found[0].get("points").split()]


def test_a_line_lies_where_its_numbers_say() -> None:
    chart = line_chart("Scores", {"own": [(12, 0.0), (13, 0.5), (14, 1.0)]}, x_label="frame", y_range=(0, 1))
    (x0, y0), (x1, y1), (x2, y2) = line(chart)
    assert x1 - x0 == pytest.approx(x2 - x1) and x2 > x0
    assert y0 - y1 == pytest.approx(y1 - y2) and y0 > y2  # up is less in SVG
    texts = [each.text for each in parsed(chart).iter("text")]
    assert {"0", "1", "12", "13", "14", "frame"} <= set(texts)
    assert "12.5" not in texts  # there is no half frame
    cells = [[cell.text for cell in row] for row in parsed(chart).iter("tr")]
    assert cells == [["frame", "own"], ["12", "0"], ["13", "0.5"], ["14", "1"]]


def test_ratios_are_equally_wide_where_that_is_asked_for() -> None:
    chart = line_chart("Scores", {"own": [(1, 0.0), (10, 0.5), (100, 1.0)]}, x_label="%", log_x=True)
    (x0, _), (x1, _), (x2, _) = line(chart)
    assert x1 - x0 == pytest.approx(x2 - x1) and x2 > x0
    assert {"1", "10", "100"} <= {each.text for each in parsed(chart).iter("text")}


def test_of_many_places_the_powers_of_ten_are_named() -> None:
    rates = [1e-6 * 1.2**n for n in range(80)]
    chart = line_chart("Loss", {"own": [(x, 1.0) for x in rates]}, x_label="rate", log_x=True)
    below = [each.text for each in parsed(chart).iter("text") if each.get("text-anchor") == "middle"]
    assert sorted(below[:-1], key=float) == ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]


def test_the_first_of_several_lines_lies_on_top_and_each_is_named() -> None:
    lines = {"own": [(1, 0.3)], "a<b": [(2, 0.4), (3, math.nan), (4, 0.2)]}
    chart = line_chart("Scores", lines, x_label="step")
    classes = [each.get("class") for each in parsed(chart).iter("polyline")]
    assert classes == ["line line-1", "line line-0"]
    assert len(line(chart, 1)) == 2  # without the point that is not finite
    assert [each.findtext("svg") is not None and each[0].tail for each in parsed(chart).iter("li")] == [
        "own",
        "a<b",
    ]
    cells = [[cell.text for cell in row] for row in parsed(chart).iter("tr")][1:]
    assert cells == [["1", "0.3", "-"], ["2", "-", "0.4"], ["3", "-", "-"], ["4", "-", "0.2"]]


@pytest.mark.parametrize("value", [0.0, -3.0, 1e-9, 7e8])
def test_a_line_without_rise_has_an_axis(value: float) -> None:
    chart = line_chart("Loss", {"loss": [(1, value), (2, value)]}, x_label="step")
    assert all(math.isfinite(y) for _, y in line(chart))
    ticks = [float(each.text) for each in parsed(chart).iter("text") if re.fullmatch(r"-?[\d.e+-]+", each.text)]
    assert min(ticks) <= value * (1 + 1e-6) and max(ticks) >= value * (1 - 1e-6)


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    chart = line_chart("Loss", {"loss": [(n, 1 / n) for n in range(1, 5001)]}, x_label="step")
    assert len(line(chart)) == MAX_POINTS
    rows = [[cell.text for cell in row] for row in parsed(chart).iter("tr")][1:]
    assert len(rows) == MAX_ROWS
    assert rows[0] == ["1", "1"] and rows[-1] == ["5000", "0.0002"]


def test_nothing_finite_is_said() -> None:
    assert line_chart("Loss", {"loss": [(1, math.nan)]}, x_label="step") == "<p>Loss: no finite numbers.</p>"
    assert "no finite numbers" in line_chart("Loss", {"loss": []}, x_label="step")


def test_lines_with_places_of_their_own_have_tables_of_their_own() -> None:
    lines = {"all": [(0.11, 0.1), (0.52, 0.5)], "objects": [(0.12, 0.3), (0.51, 0.6)], "both": [(0.11, 0.2)]}
    chart = line_chart("Confidence", lines, x_label="confidence")
    assert chart.count("<table") == 3
    assert "Confidence, by confidence: objects" in chart
    together = line_chart("Loss", {"one": [(1, 0.1), (2, 0.2)], "other": [(1, 0.3)]}, x_label="epoch")
    assert together.count("<table") == 1


def test_numbers_at_the_axes_touch_neither_each_other_nor_the_border() -> None:
    percents = [0.5, 1, 2, 5, 10, 20, 50, 90, 95, 100]
    chart = line_chart("Loss", {"own": [(x, 1.25e-05 * x) for x in percents]}, x_label="%", log_x=True)
    texts = [(each.text, float(each.get("x")), each.get("text-anchor")) for each in parsed(chart).iter("text")]
    assert all(x - 7 * len(text) >= 0 for text, x, anchor in texts if anchor == "end")
    below = sorted((x, text) for text, x, anchor in texts if anchor == "middle" and text != "%")
    assert below[0][1] == "0.5" and below[-1][1] == "100" and "90" not in dict(below).values()
    for (x, text), (after, other) in pairwise(below):
        assert after - x > 7 * (len(text) + len(other)) / 2


def test_the_last_number_below_the_axis_is_whole() -> None:
    chart = line_chart("Loss", {"own": [(1, 4.2), (750, 0.1), (1500, 0.05)]}, x_label="step")
    last = next(each for each in parsed(chart).iter("text") if each.text == "1500")
    assert float(last.get("x")) + 7 * len("1500") / 2 <= WIDTH


def test_eight_lines_look_different() -> None:
    chart = line_chart("Loss", {str(k): [(1, k), (2, k)] for k in range(8)}, x_label="step")
    styles = {each.get("class").split()[-1] for each in parsed(chart).iter("polyline")}
    assert styles == {f"line-{k}" for k in range(8)}
    assert all(f".{style} {{" in STYLE and f"--{style}:" in STYLE for style in styles)
    assert all(f".{style.replace('line', 'dot')} {{" in STYLE for style in styles)


def test_more_lines_than_colours_look_different_too() -> None:
    chart = line_chart("Loss", {f"run {k}": [(1, k), (2, k + 1)] for k in range(12)}, x_label="rate")
    drawn = [each.get("class") for each in parsed(chart).iter("polyline")]
    keys = [each.get("class") for each in parsed(chart).iter("path")]
    assert len(set(drawn)) == 12 and keys == drawn[::-1]  # the first line lies on top
    assert STYLE.index(".again {") > STYLE.index(".line-7 {")  # so that its dots count


def test_equal_numbers_of_any_size_are_drawn() -> None:
    for value in (1e-12, 0.0, -3e-15, 1e12):
        drawn = line(line_chart("Rate", {"own": [(1, value), (2, value)]}, x_label="step"))
        assert drawn[0][1] == drawn[1][1]
