"""The scripts of recipes/hands: a set like InterHand2.6M that the layout reads, and lists without pickles."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from maskcast.data.clip_store.reader import ClipStore
from maskcast.runner.run import run_stage

RECIPE = Path(__file__).resolve().parents[2] / "recipes/hands"
COUNTS = {"train": 6, "val": 2, "unlabeled": 3, "hidden": 1}


def run(monkeypatch: pytest.MonkeyPatch, script: str, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, words)])
    runpy.run_path(str(RECIPE / script), run_name="__main__")


def test_a_set_like_interhand_is_made_and_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = tmp_path / "raw"
    flags = [word for split, count in COUNTS.items() for word in (f"--{split}", count)]
    run(monkeypatch, "make_lmdb.py", raw, "--size", 48, *flags)
    assert "wrote 12 images" in capsys.readouterr().out
    values = yaml.safe_load((raw / "params.yaml").read_text())["prepare_clips"]
    run_stage("prepare_clips", values | {"workers": 1, "on_error": "fail"}, raw=raw, clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert {split: len(store.select(split)) for split in COUNTS} == COUNTS  # unpaired are complete less paired
    shown = set()
    for clip in store.select("train"):
        left, right = (store.of(side).masks(clip)[0] for side in ("left", "right"))
        seen = tuple(bool(((mask > 0) & (mask < 255)).any()) for mask in (left, right))
        assert seen == (clip.meta["hands"] != "right", clip.meta["hands"] != "left")
        shown |= {*np.unique(left).tolist(), *np.unique(right).tolist()} - {255}
    assert max(shown) <= 16 and len(shown) > 10


def test_lists_become_json_lines_and_run_code_only_when_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = {"img_path": "./a.jpg", "bbox": np.array([1, 2, 3, 4], np.float64), "hand_type": "left"}
    torch.save([entry, entry], tmp_path / "list.pt")
    torch.save([Path("a")], tmp_path / "code.pt")  # an object of a class that is not allowed
    run(monkeypatch, "list_to_jsonl.py", tmp_path / "list.pt", tmp_path / "list.jsonl")
    assert "wrote 2 entries" in capsys.readouterr().out
    lines = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert lines == [entry | {"bbox": [1.0, 2.0, 3.0, 4.0]}] * 2
    with pytest.raises(SystemExit, match="loading it could run code"):
        run(monkeypatch, "list_to_jsonl.py", tmp_path / "code.pt", tmp_path / "code.jsonl")
    with pytest.raises(SystemExit):
        run(monkeypatch, "list_to_jsonl.py", "none.pt", tmp_path / "none.jsonl")
    assert capsys.readouterr().err.endswith("error: none.pt: no such file; give a list or a table as .pt\n")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code.pt", "list.jsonl", "list.pt"]


def test_photographs_of_real_hands_are_laid_out_by_person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, masks = (tmp_path / "data/hands_hgr1/dev" / name for name in ("images", "masks"))
    frames = tmp_path / "data/hands_senz3d/unlabeled_p1-3"
    for folder in (photos, masks, frames):
        folder.mkdir(parents=True)
    hand_HW = np.full((32, 512), 255, np.uint8)
    hand_HW[:, :128] = 0  # black is skin
    for person in range(1, 6):
        for number in range(2):
            name = f"1_P_hgr1_id0{person}_{number}"
            Image.fromarray(np.full((32, 512, 3), 40 * person + number, np.uint8)).save(photos / f"{name}.jpg")
            Image.fromarray(hand_HW).convert("1").save(masks / f"{name}.bmp")
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(frames / "7.png")
    run(monkeypatch, "real.py", tmp_path / "data", tmp_path / "real")
    assert "wrote 11 images" in capsys.readouterr().out
    pairs = {"train": 2, "val": 1, "test": 1, "unlabeled": 2}
    for name, counts in (("single", {"train": 6, "val": 2, "test": 2, "unlabeled": 1}), ("pairs", pairs)):
        values = yaml.safe_load((RECIPE / f"real-{name}.yaml").read_text())["prepare_clips"]
        values |= {"height": 16, "width": 32, "workers": 1}
        if name == "pairs":
            values["source"]["pairs"] = pairs
        run_stage("prepare_clips", values, raw=tmp_path / "real" / name, clips=tmp_path / name)
        store = ClipStore(tmp_path / name)
        assert {split: len(store.select(split)) for split in counts} == counts
    single = ClipStore(tmp_path / "single")
    for clip in single.select(kind="labelled"):
        assert (single.masks(clip)[0] == (np.arange(32) < 8)).all()
    with Image.open(tmp_path / "real/pairs/images/id01/1_P_hgr1_id01_0.jpg") as photo:
        assert photo.size == (256, 16)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["real.py", "nowhere", "real"], "nowhere: has no hands_hgr1/dev/images/*.jpg; give the folder"),
        (["make_lmdb.py", "lmdb", "--train", "-1"], "counts are 0 or more, and not all of them 0"),
        (["steps.py", "--params", "other.yaml"], "has no 'other.yaml'; --params names a file there"),
        (["steps.py", "--arms", "other"], "invalid choice: 'other' (choose from "),
    ],
)
def test_what_a_script_cannot_work_with_is_one_line_and_leaves_nothing(
    words: list[str],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        run(monkeypatch, *words)
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
