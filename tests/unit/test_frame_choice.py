"""Which frames of a video a pipeline sees if the video has another frame rate than the pipeline's clips."""

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from tests.registered import CLASSES, HORIZON, SEEN, write_registered
from tests.videos import encode

import maskcast
from maskcast.__main__ import main
from maskcast.data.video_files.frames import read_video
from maskcast.serving.video_writer import draw_frames

Case = tuple[list[int], list[int]]
TICKS = 600
SLOW_THEN_FAST = [*range(0, 1200, 60), *range(1200, 1800, 20)]  # 10 frames per second for 2 s, then 30 for 1 s


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> maskcast.Pipeline:
    """Trained on every second frame of 10 per second."""
    return maskcast.load(write_registered(tmp_path_factory.mktemp("five"), frame_stride=2, frame_rate=5.0))


def film(path: Path, times: Sequence[int]) -> Path:
    encode(path, "libx264", frames=len(times), times=times, unit=Fraction(1, TICKS))
    return path


def constant(rate: int, seconds: int = 2) -> list[int]:
    return [k * TICKS // rate for k in range(rate * seconds)]


def of(result: maskcast.Forecast) -> Case:
    return list(result.frames_seen), list(result.frames_forecast)


@pytest.mark.parametrize("step", [60, 55, 65])  # 10, 10.9 and 9.2 frames per second
def test_frames_of_the_same_rate_are_taken_by_number(model: maskcast.Pipeline, tmp_path: Path, step: int) -> None:
    result = model.forecast(film(tmp_path / "a.mp4", range(0, 20 * step, step)))
    assert of(result) == ([13, 15, 17, 19], [21, 23])
    assert result.warning == ""


@pytest.mark.parametrize("rate", [10, 60])
def test_a_film_has_the_numbers_of_forecast_json_and_seconds(
    model: maskcast.Pipeline, tmp_path: Path, rate: int
) -> None:
    result = model.forecast(film(tmp_path / "a.mp4", constant(rate)))
    seen, future = of(result)
    seconds = ("-0.60", "-0.40", "-0.20", "+0.00", "+0.20", "+0.40")
    times = [f"frame {number}, {each} s" for number, each in zip(seen + future, seconds, strict=True)]
    title = f"{result.video} · {result.model}"
    expected = draw_frames(result.frames, result.seen, [result.masks], result.classes, title, times)
    assert [each.tobytes() for each in result.film()] == [each.tobytes() for each in expected]


def test_a_film_of_frames_without_times_has_their_numbers(model: maskcast.Pipeline) -> None:
    result = model.forecast(np.zeros((30, 48, 64, 3), np.uint8), start=20, stride=2)
    times = [f"frame {number}" for number in (20, 22, 24, 26, 28, 30)]
    title = f"{result.video} · {result.model}"
    expected = draw_frames(result.frames, result.seen, [result.masks], result.classes, title, times)
    assert [each.tobytes() for each in result.film()] == [each.tobytes() for each in expected]


@pytest.mark.parametrize(
    ("times", "start", "expected", "said"),
    [
        (constant(60), None, ([83, 95, 107, 119], [131, 143]), "60 frames per second (30 at stride 2)"),
        (constant(60), 7, ([7, 19, 31, 43], [55, 67]), "60 frames per second (30 at stride 2)"),
        (constant(24), None, ([33, 37, 42, 47], [52, 57]), "24 frames per second (12 at stride 2)"),
        (constant(5), None, ([6, 7, 8, 9], [10, 11]), "5 frames per second (2.5 at stride 2)"),
        (
            SLOW_THEN_FAST,
            17,
            ([17, 19, 23, 29], [35, 41]),
            "a variable frame rate, on average 16.52 frames per second (8.258 at stride 2)",
        ),
    ],
)
def test_frames_are_taken_by_time_where_the_rate_is_another(
    model: maskcast.Pipeline,
    tmp_path: Path,
    times: list[int],
    start: int | None,
    expected: Case,
    said: str,
) -> None:
    path = film(tmp_path / "a.mp4", times)
    result = model.forecast(path, start=start)
    assert of(result) == expected
    assert result.warning.startswith(f"has {said}, the model's clips 5: frames are taken by time")
    np.testing.assert_array_equal(result.masks, model.forecast(result.frames, stride=1).masks)
    np.testing.assert_array_equal(result.frames, read_video(path)[expected[0]])


def test_what_is_not_taken_by_time_is_warned_of_with_the_remedy(model: maskcast.Pipeline, tmp_path: Path) -> None:
    film(tmp_path / "fast.mp4", constant(60))
    result = model.forecast(tmp_path / "fast.mp4", stride=2)
    assert of(result) == ([113, 115, 117, 119], [121, 123])
    assert "the model's clips 5, so the forecast may be worse: leave out the stride to take" in result.warning
    assert model.forecast(tmp_path / "fast.mp4", stride=12).warning == ""
    film(tmp_path / "slow.mp4", constant(2, seconds=8))
    result = model.forecast(tmp_path / "slow.mp4")
    assert of(result)[0] == [9, 11, 13, 15]
    assert result.warning.endswith("may be worse: give a video of at least 5 frames per second")
    encode(tmp_path / "old.avi", "libx264", b_frames=2)
    result = model.forecast(tmp_path / "old.avi")
    assert of(result)[0] == [29, 31, 33, 35]
    assert "its frames have no times, so convert it: ffmpeg -i old.avi -c:v libx264 old.mp4" in result.warning


def test_a_video_that_is_too_short_in_time_is_refused(model: maskcast.Pipeline, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", constant(60)[:30])
    with pytest.raises(maskcast.MaskcastError, match=r"lasts 0\.4833 s, but 4 context frames, 5 per .* 0\.6 s"):
        model.forecast(tmp_path / "a.mp4")
    film(tmp_path / "b.mp4", constant(60))
    with pytest.raises(maskcast.MaskcastError, match=r"lasts 1\.983 s, but 4 context frames, .* need 2\.1 s"):
        model.forecast(tmp_path / "b.mp4", start=90)


def test_a_long_pause_changes_no_rate_and_is_warned_of_where_the_context_has_it(
    model: maskcast.Pipeline, tmp_path: Path
) -> None:
    pause = 600 * TICKS
    path = film(tmp_path / "a.mp4", [*range(0, 6000, 60), *range(pause, pause + 6000, 60)])
    result = model.forecast(path)
    assert (of(result), result.warning) == (([193, 195, 197, 199], [201, 203]), "")
    result = model.forecast(path, start=96)
    assert of(result)[0] == [96, 98, 100, 102]
    assert result.warning.startswith("pauses in the context, which lasts 590.6 s in place of 0.6 s, so")


def test_a_start_beyond_the_end_is_refused_also_by_time(model: maskcast.Pipeline, tmp_path: Path) -> None:
    film(tmp_path / "a.mp4", constant(60))
    with pytest.raises(
        maskcast.MaskcastError, match=r"a\.mp4: start 120 is beyond its 120 frames; give an earlier"
    ):
        model.forecast(tmp_path / "a.mp4", start=120)


def test_unknown_rates_are_not_warned_of(model: maskcast.Pipeline, tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", constant(60))
    old = maskcast.load(write_registered(tmp_path / "old"))
    assert old.loaded.about.frame_rate is None
    result = old.forecast(path)
    assert (of(result)[0], result.warning) == ([113, 115, 117, 119], "")
    assert model.forecast(result.frames, stride=1).warning == ""
    assert json.loads((tmp_path / "old/artifact/data/model.json").read_text())["frame_rate"] is None


def test_the_command_says_it_and_records_the_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = write_registered(tmp_path / "model", frame_rate=5.0)
    path = film(tmp_path / "a.mp4", constant(60))
    words = ["forecast", str(path), "--model", str(artifact), "--output", str(tmp_path / "out")]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "1 forecast, 0 skipped" in out
    assert "a: has 60 frames per second (30 at stride 2), the model's clips 5: frames are taken by time" in err
    record = json.loads((tmp_path / "out/a/forecast.json").read_text())
    assert (record["frames_seen"], record["frames_forecast"]) == ([83, 95, 107, 119], [131, 143])
    assert record["warning"].startswith("has 60 frames per second (30 at stride 2)")
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert "0 forecast, 1 skipped" in out
    assert f"a: {record['warning']}" in err
    assert len(record["frames_seen"]) == SEEN and len(record["frames_forecast"]) == HORIZON
    assert record["classes"] == list(CLASSES)
