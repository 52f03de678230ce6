"""Frames that two splits share: found, counted, named, and said where data are prepared."""

import json
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskcast.data.shared_frames import SharedFrames, frame_hashes
from maskcast.runner.run import run_stage


def frames(seed: int, count: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 6, 8, 3), dtype=np.uint8)


def test_what_two_splits_share_is_counted_and_named() -> None:
    shared = SharedFrames()
    for split, name, seed in [("train", "a", 0), ("train", "b", 1), ("val", "c", 2), ("hidden", "d", 3)]:
        shared.add(split, name, name, frame_hashes(frames(seed)))
    assert list(shared.warnings("frame")) == []
    shared.add("val", "e", "e", frame_hashes(np.concatenate([frames(1, 2)[1:], frames(5)])))
    shared.add("unlabeled", "f", "f", frame_hashes(frames(3)[::-1]))
    val, hidden = shared.warnings("frame")
    assert val.startswith("warning: 1 of 9 frames of split 'val' are also in split 'train', e.g. in 'e' and 'b': ")
    assert hidden.startswith(
        "warning: 4 of 4 frames of split 'hidden' are also in split 'unlabeled', e.g. in 'd' and 'f': "
    )


def test_what_chooses_the_model_is_not_scored_on() -> None:
    shared = SharedFrames()
    for split, name in (("val", "a"), ("test", "b"), ("hidden", "c")):
        shared.add(split, name, name, frame_hashes(frames(0)))
    test, hidden = shared.warnings("frame")
    assert test == (
        "warning: 4 of 4 frames of split 'test' are also in split 'val', e.g. in 'b' and 'a': the model is "
        "selected on what it is scored on; remove them from one of the splits"
    )
    assert hidden.startswith(
        "warning: 4 of 4 frames of split 'hidden' are also in split 'val', e.g. in 'c' and 'a': "
    )


def test_a_video_that_is_split_by_time_is_not_held_against_itself() -> None:
    shared = SharedFrames()
    for split, start in (("train", 0), ("val", 2)):
        shared.add(split, f"v_{start}", "v", frame_hashes(frames(0)[start : start + 3]))
    assert list(shared.warnings("frame")) == []
    shared.add("train", "w_0", "w", frame_hashes(frames(0)[3:]))
    (line,) = shared.warnings("frame")
    assert line.startswith(
        "warning: 1 of 2 frames of split 'val' are also in split 'train', e.g. in 'v_2' and 'w_0': "
    )


def test_frames_of_one_colour_are_not_told_apart_and_so_not_counted() -> None:
    black = np.zeros((3, 6, 8, 3), np.uint8)
    blue = black + np.array([0, 0, 255], np.uint8)
    assert frame_hashes(black) == frame_hashes(blue) == []
    blue[1, 5, 7] = 1
    assert len(frame_hashes(blue)) == 1


def test_a_frame_is_hashed_if_any_pixel_differs() -> None:
    frames = np.full((4, 30, 40, 3), 7, np.uint8)
    frames[0, 0, 1, 0], frames[1, 29, 39, 2], frames[2, 2, 0, 1] = 8, 8, 8
    wanted = [sha256(frame.tobytes()).digest() for frame in frames[:3]]
    assert frame_hashes(frames) == wanted
    assert frame_hashes(frames[:, ::-1])[1] == sha256(frames[1, ::-1].tobytes()).digest()


def write(folder: Path, seed: int) -> None:
    """Writes two frames and their masks, as a sequence of frame folders."""
    for kind, suffix in (("frames", "png"), ("masks", "png")):
        (folder / kind).mkdir(parents=True)
        for t, frame_HWC in enumerate(frames(seed, 2)):
            pixels = frame_HWC if kind == "frames" else (frame_HWC[..., 0] > 127).astype(np.uint8) * 255
            Image.fromarray(pixels).save(folder / kind / f"{t:03d}.{suffix}")


def test_a_sequence_under_two_names_is_said_where_clips_are_prepared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    for seed, name in enumerate(("one", "two", "three")):
        write(raw / name, seed)
    source = {
        "layout": "frame_folders",
        "images": "{clip}/frames",
        "masks": "{clip}/masks",
        "splits": {"val": ["three", "copy"], "test": []},
        "frames": 2,
    }
    params = {"source": source, "height": None, "width": None}
    shutil.copytree(raw / "one", raw / "copy")
    for path in (raw / "copy/frames").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    run_stage("prepare_clips", params, raw=raw, clips=tmp_path / "clean")
    assert "warning" not in capsys.readouterr().err
    shutil.rmtree(raw / "copy")
    shutil.copytree(raw / "two", raw / "copy")
    run_stage("prepare_clips", params, raw=raw, clips=tmp_path / "clips")
    said = "2 of 4 frames of split 'val' are also in split 'train', e.g. in 'copy"
    assert said in capsys.readouterr().err
    assert said in " ".join(json.loads((tmp_path / "clips/index.json").read_text())["meta"]["notes"])
