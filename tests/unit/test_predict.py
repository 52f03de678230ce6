"""Prediction: forecasts of hidden clips, in the forms that people want."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import moving_squares, write_store

from maskcast import progress
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.masks.colours import palette
from maskcast.errors import MaskcastError
from maskcast.inference.segment import segment_whole
from maskcast.inference.worker import Worker
from maskcast.labels import MASK, single_map
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import load_masker, save_masker
from maskcast.runner.run import run_stage

CLASSES = ["background", "red", "blue"]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, Path]:
    """Three hidden clips whose ids sort otherwise as text, their generated masks, and untrained models."""
    clips, masks = tmp_path / "clips", tmp_path / "masks"
    with (
        ClipWriter(clips, height=32, width=48, maps=single_map(CLASSES)) as prepared,
        ClipWriter(masks, height=32, width=48, maps=single_map(CLASSES)) as generated,
    ):
        for n in (10, 9, 100):
            frames, found = moving_squares(n, 11, 32, 48)
            prepared.add(f"video_{n}", split="hidden", kind="hidden", frames=frames, meta={"source": f"{n}.mp4"})
            generated.add(f"video_{n}", split="hidden", kind="hidden", masks={MASK: found})
    config, unet = ConvLSTMConfig(hidden=4, stride=8), UNetConfig(width=2)
    save_model(tmp_path / "forecaster", config.build(3), config, num_classes=3, meta={})
    save_masker(tmp_path / "masker", unet.build(single_map(CLASSES)), unet, {})
    return {name: tmp_path / name for name in ("clips", "masks", "masker", "forecaster")}


def test_progress_is_told_in_batches(
    tmp_path: Path,
    inputs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", -1.0)
    run_stage("predict", {"batch_size": 2}, **inputs, predictions=tmp_path / "out")
    first, second = re.findall(r"predicting batches: .*", capsys.readouterr().err)
    assert re.fullmatch(r"predicting batches: 0/2 \(\d+ s\)", first)  # no rate of nothing
    assert re.fullmatch(r"predicting batches: 1/2 \(\d+ s, \S+/s, \d+ s left\)", second)


def test_forecasts_come_as_a_store_in_numeric_order(tmp_path: Path, inputs: dict[str, Path]) -> None:
    run_stage("predict", {"batch_size": 2}, **inputs, predictions=tmp_path / "out")
    store, seen = ClipStore(tmp_path / "out"), ClipStore(inputs["masks"])
    assert [clip.id for clip in store.clips] == ["video_9", "video_10", "video_100"]
    for clip in store.clips:
        assert (clip.kind, clip.num_frames, clip.meta["first_frame"]) == ("hidden", 11, 11)
        last_seen = seen.masks(seen.get(clip.id))[-1]
        np.testing.assert_array_equal(store.masks(clip), np.stack([last_seen] * 11))  # untrained: the copy
        assert store.confidence(clip).shape == store.masks(clip).shape
    assert store.clips[0].meta["source"] == "9.mp4"
    assert {path.name for path in store.root.iterdir()} == {
        "index.json",
        "clips.jsonl",
        "clips.npy",
        "confidence-mask-00000.zst",
        "labels-mask-00000.zst",
        "README.md",
    }


def test_png_and_submission_on_request(tmp_path: Path, inputs: dict[str, Path]) -> None:
    out = tmp_path / "out"
    run_stage("predict", {"png": True, "submission": True}, **inputs, predictions=out)
    store = ClipStore(out)
    last = np.stack([store.masks(clip)[-1] for clip in store.clips])
    submission = torch.load(out / "submission.pt", weights_only=True)
    assert submission.dtype == torch.uint8
    np.testing.assert_array_equal(submission.numpy(), last)
    assert (out / "submission_ids.txt").read_text().split() == ["video_9", "video_10", "video_100"]
    pictures = sorted(path.name for path in (out / "png" / "video_10").iterdir())
    assert pictures == sorted(f"mask_{k}.png" for k in range(11, 22))
    with Image.open(out / "png" / "video_10" / "mask_21.png") as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.asarray(picture), last[1])
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), palette()[last[1]])
    with Image.open(out / "png" / "classes.png") as picture:
        legend = np.asarray(picture)
    assert all((legend == palette()[k]).all(-1).any() for k in set(np.unique(submission)) - {0})


def test_a_context_that_agrees_with_frames_after_it_is_refused_as_in_the_evaluation(
    tmp_path: Path, inputs: dict[str, Path]
) -> None:
    index = inputs["masks"] / "index.json"
    about = json.loads(index.read_text())
    index.write_text(json.dumps(about | {"meta": {"consistent_frames": 5}}))
    with pytest.raises(
        MaskcastError, match="consistent_frames 5, so masks of the 9 context frames depend on later frames"
    ):
        run_stage("predict", {"context_frames": 9}, **inputs, predictions=tmp_path / "out")
    run_stage("predict", {}, **inputs, predictions=tmp_path / "out")  # after the 11 frames seen there are none


def test_bad_input_is_named(tmp_path: Path, inputs: dict[str, Path]) -> None:
    unlike = write_store(tmp_path / "unlike", height=16, hidden=1)
    empty = write_store(tmp_path / "empty", val=1)
    cases: list[tuple[dict[str, Any], dict[str, Path], str]] = [
        ({"split": "hiden"}, {}, r"split: input should be 'train', 'val', 'test', 'unlabeled' or 'hidden'"),
        (
            {"context_frames": 12},
            {},
            "'video_9' has 11 frames, the context needs 12; lower context_frames in each section",
        ),
        ({"frame_png": 22}, {}, "predict.frame_png: 22 .* forecasts masks"),
        ({}, {"masks": empty.root}, "no generated masks of clip 'video_9'"),
        ({}, {"masks": unlike.root}, "height differ .*32 and 16"),
    ]
    for params, swapped, message in cases:
        with pytest.raises(MaskcastError, match=message):
            run_stage("predict", params, **(inputs | swapped), predictions=tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_clips_that_would_share_a_folder_of_images_are_named(tmp_path: Path, inputs: dict[str, Path]) -> None:
    shutil.rmtree(inputs["clips"])
    shutil.rmtree(inputs["masks"])
    with (
        ClipWriter(inputs["clips"], height=32, width=48, maps=single_map(CLASSES)) as prepared,
        ClipWriter(inputs["masks"], height=32, width=48, maps=single_map(CLASSES)) as generated,
    ):
        for name in ("day/1", "day_1"):
            frames, found = moving_squares(1, 11, 32, 48)
            prepared.add(name, split="hidden", kind="hidden", frames=frames)
            generated.add(name, split="hidden", kind="hidden", masks={MASK: found})
    with pytest.raises(MaskcastError, match="clips 'day/1' and 'day_1' would share the folder 'day_1'"):
        run_stage("predict", {"png": True}, **inputs, predictions=tmp_path / "out")
    run_stage("predict", {}, **inputs, predictions=tmp_path / "out")


@pytest.mark.parametrize("of", ["masks", "frames"])
def test_without_hidden_clips_there_is_nothing_to_predict(
    tmp_path: Path, inputs: dict[str, Path], capsys: pytest.CaptureFixture[str], of: str
) -> None:
    if of == "frames":
        config = ConvLSTMConfig(input="frames", motion="none", hidden=4, stride=8)
        shutil.rmtree(inputs["forecaster"])
        save_model(inputs["forecaster"], config.build(3), config, num_classes=3, meta={})
    out, params = tmp_path / "out", {"split": "test", "png": True, "submission": True}
    run_stage("predict", params, **inputs, predictions=out)
    said = capsys.readouterr().err
    assert f"nothing to predict: no clip of split 'test' in {inputs['clips']}" in said
    assert "set predict.split to a split that has some: hidden (hidden)\n" in said
    store = ClipStore(out)
    store.verify()
    assert len(store.clips) == 0 and store.classes == ClipStore(inputs["clips"]).classes
    assert torch.load(out / "submission.pt").shape == (0, 32, 48)
    assert (out / "submission_ids.txt").read_text() == ""
    if of == "frames":
        assert np.load(out / "frames.npy").shape == (0, 11, 32, 48, 3)


def test_a_forecaster_of_frames_leaves_frames_too(tmp_path: Path, inputs: dict[str, Path]) -> None:
    config = ConvLSTMConfig(input="frames", motion="none", hidden=4, stride=8)
    shutil.rmtree(inputs["forecaster"])
    save_model(inputs["forecaster"], config.build(3), config, num_classes=3, meta={})
    out = tmp_path / "out"
    run_stage("predict", {"frame_png": 22, "batch_size": 2}, **inputs, predictions=out)
    frames, store, prepared = np.load(out / "frames.npy"), ClipStore(out), ClipStore(inputs["clips"])
    assert frames.shape == (3, 11, 32, 48, 3)
    assert frames.dtype == np.uint8
    for n, clip in enumerate(store.clips):
        last_seen = prepared.frames(prepared.get(clip.id))[-1]
        np.testing.assert_array_equal(frames[n], np.stack([last_seen] * 11))  # untrained: the copy
        masker, _ = load_masker(inputs["masker"])
        found = segment_whole(Worker(masker, "fp32"), frames[n], batch_size=11)
        np.testing.assert_array_equal(store.masks(clip), found["mask"].masks)
        with Image.open(out / "png" / clip.id / "image_21.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), frames[n, 10])
