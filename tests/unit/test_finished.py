"""Finished clips: what was compressed is written as it is."""

import os
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import moving_squares

from maskcast.data.clip_store.compression import compress
from maskcast.data.clip_store.finished import FinishedClip, FinishedClips
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap

MAPS = [LabelMap("squares", ("background", "red", "blue")), LabelMap("ids", ("background", "square"), "instances")]
SQUARES = moving_squares(0, 9, 32, 48)[1]
LAYERS = {"squares": SQUARES, "ids": SQUARES.astype(np.uint16)}
OBJECTS = {"ids": {1: 1, 2: 1}}


def finished() -> FinishedClip:
    return FinishedClip(
        {name: compress(mask) for name, mask in LAYERS.items()}, {"squares": compress(SQUARES + 7)}, {"mean": 0.1}
    )


def write(root: Path, **layers: object) -> dict[str, bytes]:
    with ClipWriter(root, height=32, width=48, maps=MAPS) as writer:
        writer.add("v", split="train", kind="labelled", objects=OBJECTS, **layers)
    return {file.name: file.read_bytes() for file in root.iterdir()}


def test_a_finished_clip_comes_back_and_is_written_like_its_arrays(tmp_path: Path) -> None:
    clips = FinishedClips(tmp_path / "resume", "name")
    clips.save(0, finished())
    found = FinishedClips(tmp_path / "resume", "name").load(0)
    assert found == finished()
    as_it_is = write(tmp_path / "a", masks=found.masks, confidence=found.confidence)
    assert as_it_is == write(tmp_path / "b", masks=LAYERS, confidence={"squares": SQUARES + 7})
    store = ClipStore(tmp_path / "a", "squares")
    np.testing.assert_array_equal(store.confidence(store.clips[0]), SQUARES + 7)


def test_clips_are_counted_up_to_the_first_that_is_missing(tmp_path: Path) -> None:
    clips = FinishedClips(tmp_path, "name")
    for index in (0, 1, 3):
        clips.save(index, finished())
    assert (clips.count(9), clips.count(1)) == (2, 1)
    assert FinishedClips(tmp_path, "other").count(9) == 0


def test_clips_that_a_power_loss_damaged_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: pytest.fail("waits for the disk"))
    clips = FinishedClips(tmp_path, "name")
    for index in range(5):
        clips.save(index, finished())
    content = (tmp_path / "name/0000001.clip").read_bytes()
    for index, damaged in {1: content[:-9], 2: bytes(len(content)), 3: content[:-9] + bytes(9), 4: b""}.items():
        (tmp_path / f"name/000000{index}.clip").write_bytes(damaged)
    found = FinishedClips(tmp_path, "name")
    assert [found.has(index) for index in range(6)] == [True] + [False] * 5
    found.save(1, finished())
    assert found.load(1) == finished()


def test_compressed_layers_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MaskcastError, match=r"masks of map 'squares' are uint8 \(9, 16, 48\); the store holds"):
        write(tmp_path / "s", masks={"squares": compress(SQUARES[:, :16])})
