"""The Python face: the same masks as the commands, documented, lazy, and errors in one line."""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import ROOT, write_store
from tests.notebook import run
from tests.registered import CLASSES, HEIGHT, HORIZON, SEEN, WIDTH, clips_of_squares, write_registered
from tests.unit.test_forecast_command import SCALE, enlarged
from tests.videos import encode_frames

import maskcast
from maskcast.__main__ import main
from maskcast.data.images import RESIZE
from maskcast.inference.segment import segment_raw_and_consistent, segment_whole
from maskcast.inference.worker import Worker
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.table import load_masker
from maskcast.registry.loading import load_address, masker_of
from maskcast.serving.application import served_model

EXAMPLE = ROOT / "docs/examples/first_forecast.py"
NUMBER = re.compile(r"\d+(?:\.\d+)?")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_registered(tmp_path_factory.mktemp("model"), consistent_frames=2)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode_frames(tmp_path / "street.mp4", enlarged(0, 12))


def test_importing_it_costs_nothing() -> None:
    heavy = "{'torch', 'numpy', 'cv2', 'mlflow', 'av', 'pydantic', 'PIL'}"
    program = f"import sys, maskcast; dir(maskcast); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert set(maskcast.__all__) <= set(dir(maskcast))
    for name in maskcast.__all__:
        assert getattr(maskcast, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = maskcast.nothing  # type: ignore[attr-defined]


def test_the_types_name_what_there_is() -> None:
    told = (ROOT / "src/maskcast/__init__.pyi").read_text()
    assert {line.split(" as ")[1] for line in told.splitlines() if " as " in line} == set(maskcast.__all__)
    assert (ROOT / "src/maskcast/py.typed").is_file()


def test_a_forecast_is_that_of_the_command(artifact: Path, video: Path, tmp_path: Path) -> None:
    words = ["--model", str(artifact), "--output", str(tmp_path / "out"), "--samples", "2"]
    assert main(["forecast", str(video), *words]) == 0
    store = maskcast.ClipStore(str(tmp_path / "out/street/masks"))
    record = json.loads((tmp_path / "out/street/forecast.json").read_text())
    model = maskcast.load(artifact)
    result = model.forecast(video, samples=2)
    assert isinstance(result, maskcast.Forecast)
    clip = store.get("street")
    np.testing.assert_array_equal(result.masks, store.masks(clip))
    assert result.confidence is not None
    np.testing.assert_array_equal(result.confidence, store.confidence(clip))
    drawn = [store.masks(store.get(f"street_future_{number}")) for number in (1, 2)]
    np.testing.assert_array_equal(result.futures, drawn)
    network = model.loaded.model.forecaster.network
    wanted = [network.future(torch.from_numpy(result.seen[None]), HORIZON, seed)[0].numpy() for seed in (0, 1)]
    np.testing.assert_array_equal(result.futures, wanted)
    np.testing.assert_array_equal(model.forecaster.predict(result.seen), result.masks)
    unlabelled = np.where(result.seen == 0, 255, result.seen).astype(np.uint8)
    np.testing.assert_array_equal(model.forecaster.predict(unlabelled), result.masks)
    mirrored = result.seen[:, :, ::-1]  # a view with a step below 0, which torch does not take
    np.testing.assert_array_equal(model.forecaster.predict(mirrored), model.forecaster.predict(mirrored.copy()))
    assert result != model.forecast(video, samples=2)  # comparing arrays has no one answer
    with pytest.raises(
        maskcast.MaskcastError, match=rf"^masks: contain class {len(CLASSES)}, but the classes of this model"
    ):
        model.forecaster.predict(np.full_like(result.seen, len(CLASSES)))
    assert record["samples"] == 2 and len(model.forecast(video).futures) == 0
    assert list(result.frames_seen) == record["frames_seen"]
    assert list(result.frames_forecast) == record["frames_forecast"]
    assert result.frames.shape == (SEEN, HEIGHT * SCALE, WIDTH * SCALE, 3)
    assert result.seen.shape == (SEEN, HEIGHT, WIDTH)
    assert result.masks.shape == (HORIZON, HEIGHT, WIDTH)
    assert {each.dtype for each in (result.frames, result.seen, result.masks)} == {np.dtype(np.uint8)}
    assert result.classes == result.label_map.classes == model.label_map.classes == CLASSES
    assert (result.warning, result.video) == ("", "street")
    for name in ("film.mp4", "film.gif"):
        result.save_film(tmp_path / name)
    assert (tmp_path / "film.gif").read_bytes() == (tmp_path / "out/street/overlay.gif").read_bytes()
    assert len(result.film()) == SEEN + HORIZON
    assert f"{SEEN} frames of {HEIGHT}x{WIDTH} seen, {HORIZON} forecast, 3 classes" in repr(model)
    assert repr(result).endswith(f"forecast; masks {HORIZON}x{HEIGHT}x{WIDTH}, 3 classes>")


def test_frames_in_memory_and_folders_are_videos_too(artifact: Path, tmp_path: Path) -> None:
    clip, model = clips_of_squares(1)[0], maskcast.load(str(artifact))
    for t, frame in enumerate(clip):
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "frames" / f"{t}.png")
    wanted = model.loaded.model.predict(clip)
    for video in (clip, tmp_path / "frames"):
        np.testing.assert_array_equal(model.forecast(video, stride=1).masks, wanted)
    later = np.concatenate([clip, clip[::-1]])
    np.testing.assert_array_equal(model.forecast(later, stride=1, start=0).masks, wanted)


def test_frames_are_resized_as_a_forecast_does_it_and_as_clients_are_told(artifact: Path) -> None:
    pipeline = maskcast.load(artifact)
    about = pipeline.loaded.about
    assert served_model(pipeline.loaded).facts["resize"] == RESIZE
    assert served_model(masker_of(load_address(str(artifact), trained=True))).facts["resize"] == RESIZE
    interpolations = [eval(way) for way in re.split(" if no side grows, else ", RESIZE)]
    for grows, interpolation in zip((False, True), interpolations, strict=True):
        size = (about.height // 2, about.width) if grows else (about.height * 3, about.width * 2 + 1)
        noise = np.random.default_rng(0).integers(0, 256, (about.context_frames, *size, 3), np.uint8)
        small = maskcast.resize_frames(noise, about.height, about.width)
        told = [cv2.resize(each, (about.width, about.height), interpolation=interpolation) for each in noise]
        np.testing.assert_array_equal(small, told)
        result = pipeline.forecast(noise, stride=1)
        np.testing.assert_array_equal(result.masks, pipeline.forecast(small, stride=1).masks)


def test_a_segmenter_is_the_masker_that_was_trained_or_the_pipelines(artifact: Path, tmp_path: Path) -> None:
    parts = artifact.parent / "parts"
    trained, clip = load_masker(parts / "masker")[0], clips_of_squares(1)[0]
    setting = {"batch_size": 16}
    alone = maskcast.Segmenter(parts / "masker").segment(clip)
    np.testing.assert_array_equal(
        alone.masks, segment_whole(Worker(trained, "fp32"), clip, **setting)["mask"].masks
    )
    agreed = segment_raw_and_consistent(Worker(trained, "fp32"), clip, **setting, consistent_frames=2)[1]["mask"]
    for segmenter in (maskcast.Segmenter(artifact), maskcast.load(artifact).segmenter):
        found = segmenter.segment(clip)
        np.testing.assert_array_equal(found.masks, agreed.masks)
        assert found.confidence is not None
        np.testing.assert_allclose(found.confidence, 255 * agreed.confidence, atol=0.5001)
        assert (found.classes, found.warning) == (CLASSES, "")
    one = maskcast.Segmenter(parts / "masker").segment(clip[0])
    assert one.masks.shape == (HEIGHT, WIDTH)
    assert repr(one) == f"<Segmentation: masks {HEIGHT}x{WIDTH}, 3 classes>"
    assert repr(maskcast.Segmenter(artifact)) == f"<Segmenter Masker: frames of {HEIGHT}x{WIDTH}; mask: 3 classes>"
    assert repr(maskcast.Segmenter(artifact).session().step(clip[0])) == f"<Step: mask {HEIGHT}x{WIDTH}>"


def test_mistakes_are_one_line(artifact: Path, video: Path, tmp_path: Path) -> None:
    model, clip = maskcast.load(artifact), clips_of_squares(1)[0]
    other = encode_frames(tmp_path / "two" / "other.mp4", enlarged(1, SEEN))
    encode_frames(tmp_path / "two" / "more.mp4", enlarged(1, SEEN))
    silent = maskcast.load(write_registered(tmp_path / "silent", frame_stride=None))
    made = maskcast.load(write_registered(tmp_path / "made", ConvLSTMConfig(hidden=4, stride=4, input="frames")))
    on_gpu = torch.zeros(clip.shape, dtype=torch.uint8, device="meta")  # no more an array than that of a GPU
    (tmp_path / "a.gif").mkdir()
    cases = [
        (lambda: maskcast.load(tmp_path), "no registered model found; give models:/"),
        (lambda: maskcast.load("mine@champion"), "found; did you mean models:/mine@champion? give models:/NAME"),
        (lambda: maskcast.load("models:/mine/champion"), "address; did you mean models:/mine@champion? give"),
        (
            lambda: maskcast.load(artifact.parent / "parts/masker"),
            "masker: a model of a training stage, which is not",
        ),
        (lambda: maskcast.Segmenter(tmp_path), "no registered model found; give models:/"),
        (lambda: model.forecast(tmp_path / "missing.mp4"), "missing.mp4: no such video or folder"),
        (lambda: model.forecast(other.parent), "two: contains 2 videos; give one of them, e.g. "),
        (lambda: model.forecast(video, stride=0), "stride: got 0; give"),
        (lambda: model.forecast(video, start=-1), "start: got -1; give a frame index, 0 or more"),
        (lambda: model.forecast(video, samples=-1), "samples: got -1; give the number of futures to draw"),
        (lambda: made.forecast(video, samples=1), "samples: got 1, but the forecaster of "),
        (lambda: silent.forecast(video), "stride: required, as the model's clips do not record theirs"),
        (
            lambda: model.forecast(video, stride=9),
            "street.mp4: has 12 frames, but 4 context frames",
        ),
        (lambda: model.forecast(clip.astype(np.float32)), "video: got float32 of shape"),
        (lambda: model.segmenter.segment(clip[..., 0]), "frames: got uint8 of shape"),
        (lambda: model.forecast(list(clip)), "video: got a list; give a path, an address, or an array of frames"),
        (lambda: model.forecast("x" * 5000), "x: "),
        (lambda: maskcast.load("x" * 5000), "xxx"),
        (lambda: model.forecast(video, stride=1.5), "stride: got 1.5; give a whole number"),
        (lambda: model.forecast(video, start="0"), "start: got '0'; give a whole number"),
        (lambda: model.forecast(video, samples=None), "samples: got None; give a whole number"),
        (lambda: model.forecast(video, samples=10**9), "samples: got 1000000000; give the number of futures to"),
        (
            lambda: model.segmenter.segment([[1], [2, 3]]),
            "frames: a list cannot be converted to an array (setting an array",
        ),
        (
            lambda: model.segmenter.segment(on_gpu),
            "frames: a Tensor cannot be converted to an array (can't convert meta",
        ),
        (
            lambda: model.forecaster.predict(on_gpu),
            "masks: a Tensor cannot be converted to an array (can't convert meta",
        ),
        (lambda: model.forecast(video).save_film(tmp_path / "a.gif"), "a.gif: cannot be read or written (Is a"),
        (lambda: model.forecast(video).save_film("film.avi"), "film.avi: unsupported suffix; use .mp4 or .gif"),
        (lambda: model.forecast(video).save_film("none/film.gif"), "none/film.gif: folder none not found; create"),
    ]
    for call, told in cases:
        with pytest.raises(maskcast.MaskcastError) as caught:
            call()
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_the_documented_example_runs(
    artifact: Path,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = EXAMPLE.read_text()
    assert source.split('"""\n\n', 1)[1] in (ROOT / "docs/python.md").read_text()
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(artifact), str(video)])
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE))
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[:-1]] == ["frame 13", "frame 15"]
    assert said[-1] == "the video is like those that the model was trained on"
    assert (tmp_path / "forecast.mp4").stat().st_size > 1000


def test_documented_masks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "data/clips", train=1, val=2)
    (tmp_path / "models").mkdir()
    (tmp_path / "models/masker").symlink_to(artifact.parent / "parts/masker")
    text = (ROOT / "docs/python.md").read_text().split("## Masks")[1]
    program = text.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    exec(program, values)
    assert (values["masks"] == values["truth"]).mean() > 0.97
    write_store(tmp_path / "data/masks", unlabeled=0, val=2)
    exec(text.split("```python\n")[2].split("```")[0], {})
    assert capsys.readouterr().out.count(" 1.0") == 2


AFTER = """
import json

assert scores == json.loads(Path("models/masker-0.01.json").read_text())
assert Path("models/masker-0.003.html").is_file() and "MLFLOW_RUN_ID" not in os.environ
found = mlflow.get_run(run.info.run_id)
assert found.info.run_name == "wide" and found.data.metrics["val_jaccard"] > 0
assert {"who": "ann", "maskcast.stage": "train_masker"}.items() <= found.data.tags.items()
(untrained,), _ = maskcast.Segmenter("models/masker").model.network(frames)
assert loss < 0.7 * F.cross_entropy(untrained[0], masks, ignore_index=255)
"""


def test_documented_trainings_run(tmp_path: Path) -> None:
    write_store(tmp_path / "data/clips")
    short = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "learning_rate": 0.01}
    model = {"arch": "unet", "width": 4}
    (tmp_path / "params.yaml").write_text(json.dumps({"train_masker": {"model": model, "training": short}}))
    (tmp_path / "models").mkdir()
    (tmp_path / "models/masker").symlink_to("wide")
    text = (ROOT / "docs/python.md").read_text().split("## Train\n")[1]
    programs = [part.split("```")[0] for part in text.split("```python\n")[1:4]]
    (tmp_path / "script.py").write_text("\n".join([*programs, AFTER]))
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_script_without_a_main_is_told_so(tmp_path: Path) -> None:
    params = {"source": {"layout": "synthetic", "train": 2, "val": 2, "unlabeled": 0, "hidden": 0}, "workers": 2}
    call = f"maskcast.run_stage('prepare_clips', {params | {'height': 16, 'width': 24}}, raw='.', clips='clips')\n"
    (tmp_path / "script.py").write_text(f"import maskcast\n\n{call}")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "MaskcastError: prepare_clips: a process that the stage started has imported your script" in done.stderr
    (tmp_path / "script.py").write_text(f'import maskcast\n\nif __name__ == "__main__":\n    {call}')
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_notebook_runs_and_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = ROOT / "docs/notebooks/first-forecast.ipynb"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")  # no server is asked
    shown = run(path)
    pictures = [value for value in shown if isinstance(value, Image.Image)]
    assert len(pictures) == 2
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert (tmp_path / "forecast.mp4").stat().st_size > 1000
    assert "differs from the training data" in str(shown[-2])
    assert shown[-1] == ((11, 80, 120), True)
    notebook = json.loads(path.read_text())
    kept = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [bool(each) for each in kept] == [value is not None for value in shown]
    for (output,), value in zip(filter(None, kept), filter(None, shown), strict=True):
        if not isinstance(value, Image.Image):  # another processor rounds sums differently, or has no bfloat16
            told, here = "".join(output["data"]["text/plain"]), repr(value)
            assert NUMBER.sub("", told) == NUMBER.sub("", here)
            before, now = ([float(each) for each in NUMBER.findall(text)] for text in (told, here))
            assert before == pytest.approx(now, rel=0.15), told
    assert path.stat().st_size < 200_000
