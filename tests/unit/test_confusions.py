"""What is taken for what: counted by hand."""

import re

import numpy as np

from maskcast.evaluation.scores import ForecastScores
from maskcast.report.confusions import CELL, MAX_CLASSES, MAX_LISTED, confusions


def scored(truth: np.ndarray, forecast: np.ndarray, num_classes: int) -> ForecastScores:
    scores = ForecastScores(num_classes, context_frames=11, horizon=1)
    scores.add("clip", truth[None], forecast[None])
    return scores


def test_errors_are_counted_and_absent_classes_left_out() -> None:
    truth = np.array([[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2]], np.uint8)
    forecast = np.array([[0, 0, 0, 1], [1, 1, 0, 2], [2, 2, 1, 1]], np.uint8)
    text = confusions(scored(truth, forecast, 5), ["rest", "a<b", "two", "never", "neither"])
    assert (
        "Of 8 pixels of frame 12 that are not rest, 12.5% were forecast as rest and 37.5% as another wrong" in text
    )
    assert "Of 4 pixels of rest, 25.0% were forecast as another class." in text  # whatever class 0 is called
    rows = re.findall(
        r'<th scope="row">([^<]*)</th><td class="text">([^<]*)</td><td>([^<]*)</td><td>([^<]*)</td>', text
    )
    assert rows == [("two", "a&lt;b", "2", "50.0%"), ("a&lt;b", "two", "1", "25.0%")]
    cells = re.findall(r"<title>([^<]*)</title>", text)
    assert len(cells) == 7 and "a&lt;b forecast as rest: 25.0% (1 pixel)" in cells
    assert "never" not in text


def test_thousands_have_commas_and_one_pixel_is_no_pixels() -> None:
    truth, forecast = np.zeros((2, 1001), np.uint8), np.zeros((2, 1001), np.uint8)
    truth[0, 0] = forecast[0, 0] = 1
    text = confusions(scored(truth, forecast, 2), ["rest", "one"])
    assert "Of 1 pixel of frame 12 that" in text and "Of 2,001 pixels of rest, " in text
    assert (
        "rest forecast as rest: 100.0% (2,001 pixels)" in text and "one forecast as one: 100.0% (1 pixel)" in text
    )


def test_of_very_many_classes_those_with_errors_are_drawn() -> None:
    truth = np.arange(200, dtype=np.uint8)[None].repeat(2, axis=0)
    forecast = truth.copy()
    forecast[0, 100:140] = truth[0, 100:140] + 1  # 41 classes lose a pixel, or get one that is not theirs
    text = confusions(scored(truth, forecast, 200), [f"class {k}" for k in range(200)])
    assert text.count("rotate(-90") == MAX_CLASSES
    assert f"The {MAX_CLASSES} classes with the most errors" in text
    assert all(f">class {k}</text>" in text and text.count(f">{k}</text>") == 2 for k in range(100, 141))
    assert text.count('<th scope="row">') == MAX_LISTED


def test_a_forecast_without_errors_has_no_list() -> None:
    truth = np.array([[0, 1]], np.uint8)
    text = confusions(scored(truth, truth, 2), ["rest", "one"])
    assert "0.0% were forecast as rest." in text and "<table>" not in text


def test_a_long_name_is_shortened_and_told_whole() -> None:
    truth = np.array([[0, 1, 2]], np.uint8)
    names = ["rest", "one", "cylinder of red metal that is very long and shiny"]
    text = confusions(scored(truth, truth[:, ::-1], 3), names)
    short = re.search(f">([^<]*…[^<]*)<title>{names[2]}</title></text>", text)[1]
    assert names[2].startswith(short.split("…")[0]) and names[2].endswith(short.split("…")[1])
    assert "<title>one</title>" not in text
    places = [float(x) for x in re.findall(r'<text x="([\d.]+)"', text)]
    assert min(places) > 8 * len(short) / 2 and MAX_CLASSES * CELL + max(places[:2]) < 1120  # of a desk's page
