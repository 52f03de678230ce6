"""Expected calibration error by hand."""

import math

import numpy as np
import pytest

from maskcast.evaluation.calibration import Reliability
from maskcast.evaluation.scores import ForecastScores


def picture(values: list[int]) -> np.ndarray:
    return np.array(values, np.uint8)[None, None]


def test_the_error_is_the_one_counted_by_hand() -> None:
    reliability = Reliability()
    # four certain pixels, three right; two at 51/255 = 0.2, one right; two one step below, which is another bin,
    # both wrong; one without a label
    truth = picture([1, 1, 0, 2, 0, 1, 1, 1, 255])
    found = picture([1, 1, 0, 0, 0, 0, 0, 0, 1])
    reliability.add(truth, found, picture([255] * 4 + [51] * 2 + [50] * 2 + [255]))
    bins = [(50 / 255, 0, 0.25), (0.2, 0.5, 0.25), (1.0, 0.75, 0.5)]
    assert reliability.curve() == [pytest.approx(each) for each in bins]
    assert reliability.error() == pytest.approx(0.25 * 50 / 255 + 0.25 * 0.3 + 0.5 * 0.25)


def test_objects_are_where_the_forecast_has_one() -> None:
    reliability = Reliability(objects=True)
    reliability.add(picture([0, 0, 1, 2]), picture([0, 1, 0, 2]), picture([255] * 4))
    assert reliability.pixels.sum() == 2 and reliability.correct.sum() == 1
    assert reliability.error() == pytest.approx(1 / 2)


def test_calibrated_confidence_has_no_error_and_parts_add_up() -> None:
    random = np.random.default_rng(0)
    confidence = random.integers(0, 256, (2, 200, 300), dtype=np.uint8)
    truth = np.ones_like(confidence)
    found = (random.random(confidence.shape) < confidence / 255).astype(np.uint8)
    reliability = Reliability()
    for step in range(2):
        reliability.add(truth[step : step + 1], found[step : step + 1], confidence[step : step + 1])
    assert reliability.pixels.sum() == confidence.size and reliability.error() < 0.01


def test_without_pixels_there_is_no_error() -> None:
    assert math.isnan(Reliability().error())


def test_a_forecast_of_a_pixel_without_a_label_counts_nowhere() -> None:
    scores = ForecastScores(3, context_frames=1, horizon=1)
    scores.add("a", picture([1, 255]), picture([1, 2]), picture([255, 51]))
    table = scores.table()
    assert table["calibration_error"] == table["calibration_error_objects"] == 0
