"""Frames unlike those that a masker was trained on are told from others, in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from tests.registered import HEIGHT, SEEN, WIDTH, clips_of_squares, write_parts, write_registered

from maskcast.__main__ import main
from maskcast.data.images import resize_frames
from maskcast.inference.distribution_shift import (
    MeanStd,
    ObservedClip,
    Reference,
    colour_features,
    mean_std,
    mean_std_by_key,
    shift_warning,
)
from maskcast.registry.forecast_models import MaskerModel
from maskcast.registry.loading import load_address, pipeline_of
from maskcast.serving.application import make_app, served_model
from maskcast.serving.videos import find_videos
from maskcast.simulator.scenes import simulate_clip

SHOWN = 11  # frames that the shipped pipeline sees
PLAIN = {name: MeanStd(mean=0.5, std=0.0) for name in ("red", "green", "blue")} | {
    "contrast": MeanStd(mean=0.1, std=0.05)
}
KNOWN = Reference(
    height=40, width=60, aspect=(1.5, 1.5), colours=PLAIN, confidence={"mask": MeanStd(mean=0.9, std=0.02)}
)


def frames_of(red: float = 0.5, contrast: float = 0.1, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Returns frames whose colours have these means, and a deviation of `contrast` each."""
    frames = np.full((3, *size, 3), 127.5) + np.array([255 * (red - 0.5), 0, 0])
    frames[:, ::2] += 255 * contrast
    frames[:, 1::2] -= 255 * contrast
    return frames.round().astype(np.uint8)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (ObservedClip(frames_of(), 0.9, (320, 480)), ""),
        (ObservedClip(frames_of(), None, (540, 960)), ""),  # 16:9 is near enough to 3:2
        (ObservedClip(frames_of(red=0.545), 0.81, (40, 60)), ""),
        (ObservedClip(frames_of(contrast=0.29), 0.9), ""),  # contrasts differ among the clips that are known
        (ObservedClip(frames_of(red=0.56), 0.9), "mean red is 0.56, in training 0.50"),
        (ObservedClip(frames_of(contrast=0.31), 0.9), "mean contrast is 0.31, in training 0.10"),
        (ObservedClip(frames_of(), 0.79), "mean confidence is 0.79, in validation 0.90"),
        (
            ObservedClip(frames_of(), 0.9, (1920, 1080)),
            "aspect ratio of 1920x1080 frames is 0.56, in training 1.50",
        ),
        (ObservedClip(frames_of(), 0.9, (20, 30)), "frames of 20x30 are upscaled to 40x60"),
        (ObservedClip(frames_of(size=(20, 30)), 0.9), "frames are 20x30, in training 40x60"),
        (ObservedClip(frames_of(size=(80, 120)), 0.9), "frames are 80x120, in training 40x60"),
        (
            ObservedClip(frames_of(red=0.9), 0.2, (20, 20)),
            "aspect ratio of 20x20 frames is 1.00, in training 1.50; mean red is 0.90, in training 0.50; "
            "mean confidence is 0.20, in validation 0.90",
        ),
    ],
)
def test_what_is_far_from_all_that_is_known_is_told(seen: ObservedClip, told: str) -> None:
    line = "differs from the training data, so masks may be worse: "
    assert shift_warning(seen, KNOWN, "mask") == (line + told if told else "")
    assert shift_warning(seen, None, "mask") == ""


def test_clips_of_many_sizes_and_another_map_ask_for_less() -> None:
    wide = KNOWN.model_copy(update={"aspect": (0.6, 1.8)})
    assert shift_warning(ObservedClip(frames_of(), 0.9, (1920, 1080)), wide, "mask") == ""
    assert shift_warning(ObservedClip(frames_of(), 0.1), KNOWN, "other") == ""


def test_colours_are_means_of_three_frames() -> None:
    frames = np.zeros((5, 2, 2, 3), np.uint8)
    frames[[0, 2, 4], ..., 0] = 255  # frames 1 and 3 are not looked at
    assert colour_features(frames) == pytest.approx({"red": 1, "green": 0, "blue": 0, "contrast": 1 / 255})
    assert colour_features(frames[:1])["red"] == 1


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline of squares whose masker knows 20 clips of squares."""
    root = tmp_path_factory.mktemp("known")
    masker = MaskerModel(write_parts(root / "plain")["masker"], "fp32")
    clips = clips_of_squares(20)
    sure = [masker.mask_clip(clip, None).mean_confidence or 0.0 for clip in clips]
    reference = Reference(
        height=HEIGHT,
        width=WIDTH,
        aspect=(1.5, 1.5),
        colours=mean_std_by_key(map(colour_features, clips)),
        confidence={"mask": mean_std(sure)},
    )
    return write_registered(root, reference=reference.model_dump(mode="json"))


def test_a_video_is_told_each_time_and_one_that_is_alike_is_not(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    alike = np.repeat(np.repeat(clips_of_squares(30)[-1], 4, 1), 4, 2)
    noise = np.random.default_rng(0).integers(0, 256, alike.shape, dtype=np.uint8)
    for name, frames in {"alike": alike, "inverted": 255 - alike, "noise": noise}.items():
        (tmp_path / "videos" / name).mkdir(parents=True)
        for t, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / "videos" / name / f"{t}.png")
    output = ["--model", str(artifact), "--output", str(tmp_path / "out"), "--stride", "1"]
    assert main(["forecast", str(tmp_path / "videos"), *output]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "differs" in line]
    assert [line.split(":")[0] for line in said] == ["inverted", "noise"]
    assert main(["forecast", str(tmp_path / "videos"), *output]) == 0
    again = capsys.readouterr()
    assert [line for line in again.err.splitlines() if "differs" in line] == said and "3 skipped" in again.out


def test_an_answer_has_a_warning_where_a_clip_is_unlike(artifact: Path) -> None:
    loaded = pipeline_of(load_address(str(artifact)))
    client = TestClient(make_app(served_model(loaded)))
    clips = clips_of_squares(3)

    def parameters(clips: np.ndarray) -> dict[str, Any]:
        frames = {"name": "frames", "shape": clips.shape, "datatype": "UINT8", "data": clips.ravel().tolist()}
        answer = client.post("/v2/models/artifact/infer", content=json.dumps({"inputs": [frames]}))
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["parameters"]
        return found

    assert parameters(clips) == {"digest": loaded.digest}
    clips[1:] = 255 - clips[1:]
    warning = parameters(clips)["warning"]
    assert warning.startswith("clip 1: differs from the training data")
    assert warning.endswith("(and 1 more clip)")


@pytest.mark.parametrize("frames", [1, SEEN - 1, SEEN + 1])
def test_an_answer_has_a_warning_where_a_clip_is_shorter_or_longer_than_those_of_the_evaluation(
    artifact: Path, frames: int
) -> None:
    client = TestClient(make_app(served_model(pipeline_of(load_address(str(artifact))))))
    clips = np.tile(clips_of_squares(2), (1, 2, 1, 1, 1))[:, :frames]

    def warning(clips: np.ndarray) -> str:
        given = {"name": "frames", "shape": clips.shape, "datatype": "UINT8", "data": clips.ravel().tolist()}
        answer = client.post("/v2/models/artifact/infer", content=json.dumps({"inputs": [given]}))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["parameters"]["warning"])

    has = f"has {frames} frame{'s' if frames > 1 else ''}, in the evaluation {SEEN}"
    assert warning(clips) == f"clip 0: {has}, so the forecast may be worse (and 1 more clip)"
    assert warning(255 - clips).startswith(
        f"clip 0: {has}, so the forecast may be worse; differs from the training"
    )


def test_a_pipeline_from_before_it_says_nothing(tmp_path: Path) -> None:
    loaded = pipeline_of(load_address(str(write_registered(tmp_path))))
    noise = np.random.default_rng(0).integers(0, 256, (SEEN, HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert loaded.model.predict_all(noise, (10, 900)).warning == ""


def test_what_the_server_does_not_speak_is_said(artifact: Path) -> None:
    loaded = pipeline_of(load_address(str(artifact)))
    client = TestClient(make_app(served_model(loaded)))
    assert client.get("/v2/models/artifact/ready").json() == {"name": "artifact", "ready": True}
    asked = (
        ("POST", "/v1/models/artifact:predict", 404, "not found"),  # the protocol before v2
        ("GET", "/v2/models/artifact/infer", 405, "method not allowed"),
        ("GET", "/", 404, "not found"),
    )
    for method, path, status, problem in asked:
        answer = client.request(method, path)
        line = f"{method} {path}: {problem}; use the v2 inference protocol, e.g. POST /v2/models/artifact/infer"
        assert (answer.status_code, answer.json()) == (status, {"error": line})
        assert answer.headers.get("Allow") == ("POST" if status == 405 else None)


def test_the_shipped_pipeline_knows_its_own_kind() -> None:
    model = pipeline_of(load_address(None)).model
    for seed in range(3):
        frames, _ = simulate_clip(seed, frames=SHOWN, stride=5, height=80, width=120)
        assert frames is not None
        assert model.predict_all(frames, (320, 480)).warning == ""
        dark = (frames * 0.5).astype(np.uint8)
        assert " is 0.2" in model.predict_all(dark, (320, 480)).warning


def test_the_shipped_pipeline_tells_real_scenes(shared_data: Path) -> None:
    model, davis = pipeline_of(load_address(None)).model, shared_data / "davis2016_val/JPEGImages/480p"
    for video in find_videos([f"{davis}/dog", f"{shared_data}/camvid/0016E5_15Hz/images"], Path("no")):
        frames = video.read(range(SHOWN))
        told = model.predict_all(resize_frames(frames, 80, 120), frames.shape[1:3]).warning
        assert told.startswith("differs from the training data"), video.name
