"""What comes with maskcast: a trained pipeline, and a clip that it has never seen."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import ROOT

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.errors import MaskcastError
from maskcast.evaluation.horizons import HorizonCounts
from maskcast.registry.loading import SAMPLE_PIPELINE, SAMPLES, load_address, load_servable, masker_of, pipeline_of
from maskcast.serving.application import served_model
from maskcast.simulator.camera import CLASSES
from maskcast.simulator.scenes import simulate_clip

SEEN, HORIZON, STRIDE = 11, 11, 5
SCORES = json.loads((SAMPLES / "sample.json").read_text())


def scores_of(future_hHW: np.ndarray) -> tuple[float, float]:
    """Returns the Jaccard of the last frame and the mean, of a forecast of the clip."""
    frames = (SEEN + HORIZON - 1) * STRIDE + 1
    height, width = future_hHW.shape[1:]
    _, truth = simulate_clip(SCORES["seed"], frames=frames, stride=1, height=height, width=width, render=False)
    counts = HorizonCounts(len(CLASSES), HORIZON)
    counts.count(truth[::STRIDE][SEEN:], future_hHW)
    return counts.per_horizon()[-1], float(np.mean(counts.per_horizon()))


def test_the_sample_is_forecast_as_its_card_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # no server is asked
    assert main(["forecast", "sample"]) == 0
    out, err = capsys.readouterr()
    assert out == "1 forecast, 0 skipped, 0 failed: forecasts\n"
    assert "the shipped pipeline forecasts 1 video" in err
    assert "video: forecasts/sample/overlay.mp4" in err
    record = json.loads((tmp_path / "forecasts/sample/forecast.json").read_text())
    assert record["frames_seen"] == list(range(0, 51, STRIDE))
    store = ClipStore(tmp_path / "forecasts/sample/masks")
    found = scores_of(store.masks(store.get("sample")))
    assert found == pytest.approx((SCORES["jaccard_last"], SCORES["jaccard_mean"]), abs=0.03)  # CPUs round apart


def test_the_sample_shows_more_than_a_copy() -> None:
    frames = (SEEN - 1) * STRIDE + 1
    _, seen = simulate_clip(SCORES["seed"], frames=106, stride=1, height=80, width=120, keep=frames, render=False)
    copied = np.repeat(seen[-1:], HORIZON, axis=0)
    assert scores_of(copied)[0] < SCORES["jaccard_last"] - 0.1


def test_the_shipped_pipeline_has_a_card_and_is_small() -> None:
    about = pipeline_of(load_address(None)).about
    assert (about.classes, about.frame_stride, about.consistent_frames) == (CLASSES, STRIDE, SEEN)
    card = (SAMPLE_PIPELINE / "README.md").read_text()
    for word in ("data_hash", "git_sha", "## Scores", "## Params", "rigid_body"):
        assert word in card
    files = [path for path in SAMPLES.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
    assert not [path for path in files if path.suffix in (".pt", ".pkl", ".pth")]
    package_data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "samples/**" in package_data["maskcast"]


def test_the_word_sample_is_the_address_of_the_shipped_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    digest = pipeline_of(load_address(None)).digest
    served = served_model(load_servable("sample"))
    assert (served.name, served.version, served.digest) == ("sample", "0", digest)  # a name that fits into routes
    assert masker_of(load_address("sample", trained=True)).digest == digest
    assert main(["forecast", "sample", "--model", "sample"]) == 0
    assert "the shipped pipeline forecasts 1 video" in capsys.readouterr().err
    (tmp_path / "sample").mkdir()
    with pytest.raises(MaskcastError, match="sample: no registered model found"):
        load_servable("sample")


def test_a_file_called_sample_is_meant_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").mkdir()
    assert main(["forecast", "sample"]) == 2
    assert "sample: no video found" in capsys.readouterr().err
