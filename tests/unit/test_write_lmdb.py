"""Masks of two hands out as an LMDB: read back by the layout that reads LMDBs, whole or not at all."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.test_source_lmdb import frame, png

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.lmdb_files import write_lmdb
from maskcast.labels import LabelMap
from maskcast.runner.run import run_stage

SIZE = 20
CLASSES = ("background", *(f"part {number}" for number in range(1, 17)))
MAPS = (LabelMap("left", CLASSES), LabelMap("right", CLASSES))


def masks(number: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(number)
    return {one.name: random.integers(0, 17, (1, SIZE, SIZE)).astype(np.uint8) for one in MAPS}


def write_store(root: Path, frames: int = 1, path: str | None = None) -> Path:
    """Masks of three hidden images, as generate_masks writes them, and one of split train."""
    with ClipWriter(root, height=SIZE, width=SIZE, maps=MAPS) as writer:
        for number in range(4):
            split, kind = ("train", "labelled") if number == 3 else ("hidden", "hidden")
            found = {name: np.repeat(mask, frames, 0) for name, mask in masks(number).items()}
            meta = {"path": path or f"data/images/{number}.jpg"}
            writer.add(f"clip {number}", split=split, kind=kind, masks=found, meta=meta)
    return root


def test_what_is_written_is_read_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = write_store(tmp_path / "masks")
    out = tmp_path / "out/mine.tar.gz"
    assert main(["write-lmdb", "--masks", str(store), "--split", "hidden", "--output", str(out)]) == 0
    assert "wrote the masks of 3 images" in capsys.readouterr().out
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    raw = tmp_path / "raw"
    with tarfile.open(out) as tar:
        for member in tar.getmembers():
            if content := tar.extractfile(member):  # `extractall` has a filter from Python 3.11.4 on alone
                (raw / member.name).parent.mkdir(parents=True, exist_ok=True)
                (raw / member.name).write_bytes(content.read())
    paths = torch.load(raw / "mine/im_path.pt", weights_only=True)
    assert paths == [f"data/images/{number}.jpg" for number in range(3)]
    write_lmdb(raw / "images.lmdb", ((path, png(frame(0)[:SIZE, :SIZE])) for path in paths))
    lines = [
        json.dumps({"img_path": path, "bbox": [0, 0, SIZE, SIZE], "hand_type": "interacting"}) for path in paths
    ]
    (raw / "list.jsonl").write_text("\n".join(lines))
    source = {
        "layout": "lmdb",
        "images": "images.lmdb",
        "masks": "mine/test.lmdb",
        "lists": {"val": "list.jsonl"},
        "ids": {},
        "left_shift": 0,
        "prefix": "data/images/",
    }
    values = {"source": source, "height": SIZE, "width": SIZE, "workers": 1, "required_splits": []}
    run_stage("prepare_clips", values, raw=raw, clips=tmp_path / "clips")
    back = ClipStore(tmp_path / "clips")
    for number in range(3):
        for name, mask in masks(number).items():
            np.testing.assert_array_equal(back.of(name).masks(back.get(str(number))), mask)


def refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    before = sorted(tmp_path.rglob("*"))
    assert main(["write-lmdb", *words]) == 2
    assert sorted(tmp_path.rglob("*")) == before
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    return line


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, out = str(write_store(tmp_path / "masks")), str(tmp_path / "out.tar.gz")
    (tmp_path / "there.tar.gz").touch()
    flags = ("--masks", store, "--output")
    assert "--output must end in .tar.gz" in refuses(tmp_path, capsys, *flags, str(tmp_path / "out.zip"))
    assert "already exists (--output)" in refuses(tmp_path, capsys, *flags, str(tmp_path / "there.tar.gz"))
    assert "no clip of split 'val' has masks of left and right" in refuses(
        tmp_path, capsys, *flags, out, "--split", "val"
    )
    films = str(write_store(tmp_path / "films", frames=2))
    assert "has 2 frames; give single images" in refuses(tmp_path, capsys, "--masks", films, "--output", out)
    twice = str(write_store(tmp_path / "twice", path="same.jpg"))
    assert "key 'same.jpg__l' occurs twice" in refuses(tmp_path, capsys, "--masks", twice, "--output", out)
    strange = str(write_store(tmp_path / "strange", path="händ.jpg"))
    assert "is not ASCII; rename" in refuses(tmp_path, capsys, "--masks", strange, "--output", out)
