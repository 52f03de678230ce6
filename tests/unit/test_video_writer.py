"""The videos that are written: their times, whatever the encoder."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from maskcast.data.video_files.timing import read_timing
from maskcast.serving import video_writer
from maskcast.serving.video_writer import VideoWriter


@pytest.mark.parametrize("codec", video_writer.CODECS)
@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(2997003, 100000)], ids=str)
@pytest.mark.parametrize("unit", [None, Fraction(1, 1000), Fraction(1, 12800), Fraction(1, 90000)], ids=str)
def test_frames_have_their_times_in_any_unit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, rate: Fraction, unit: Fraction | None
) -> None:
    monkeypatch.setattr(video_writer, "CODECS", (codec,))
    times = [round(k / rate / (unit or 1 / rate)) for k in range(5)]
    with VideoWriter(tmp_path / "film.mp4", 64, 64, rate, unit) as writer:
        for time in times:
            writer.add(np.zeros((64, 64, 3), np.uint8), time)
    wanted = [float(time * (unit or 1 / rate)) for time in times]
    seconds_T = read_timing(tmp_path / "film.mp4").seconds_T
    assert seconds_T is not None
    np.testing.assert_allclose(seconds_T, wanted, atol=1.7e-5)


def test_frames_that_are_closer_than_the_unit_stay_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_writer, "CODECS", ("mpeg4",))
    with VideoWriter(tmp_path / "film.mp4", 64, 64, Fraction(25), Fraction(1, 90000)) as writer:
        for time in range(5):
            writer.add(np.zeros((64, 64, 3), np.uint8), time)
    assert read_timing(tmp_path / "film.mp4").count == 5
