"""Hands from LMDBs: masks of both hands around their boxes, lists that run no code, a line for what is wrong."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.lmdb_files import write_lmdb
from maskcast.data.sources.hand_lmdb import HandLmdbSource
from maskcast.errors import MaskcastError
from maskcast.runner.run import run_stage

PREFIX = "data/InterHand2.6M/images/"
HEIGHT, WIDTH = 20, 30
LEFT = np.zeros((HEIGHT, WIDTH), np.uint8)
LEFT[4:8, 10:14] = 17  # the palm of the left hand, as stored
LEFT[6:8, 12:18] = 32
RIGHT = np.zeros((HEIGHT, WIDTH), np.uint8)
RIGHT[5:10, 12:16] = 16


def png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1])


def frame(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def entry(number: int, **values: Any) -> dict[str, Any]:
    known = {"img_path": f"./{PREFIX}a/{number}.jpg", "bbox": np.array([8.0, 2, 10, 10], np.float32)}
    return known | {"hand_type": "interacting", "frame": str(number), "seq": None} | values


Values = dict[str, Any]


def write(raw: Path, change: Callable[[Values], object] = lambda values: None) -> Path:
    """Writes images 0 to 5 (0 to 2 train, 3 val, 4 and 5 unpaired) with masks of the first four."""
    raw.mkdir()
    values: Values = {
        "images": {f"{PREFIX}a/{number}.jpg": png(frame(number)[..., ::-1]) for number in range(6)},
        "masks": {
            f"{40 + number}__{side}": png(np.repeat(mask[..., None], 3, -1))
            for number in range(4)
            for side, mask in (("l", LEFT), ("r", RIGHT))
        },
        "train": [entry(number) for number in range(3)],
        "val": [entry(3, hand_type="right")],
        "unlabeled": [entry(number) for number in (0, 4, 1, 5, 2)],
        "ids": {f"a/{number}": 40 + number for number in range(4)},
    }
    change(values)
    write_lmdb(raw / "interhand.lmdb", iter(values["images"].items()))
    write_lmdb(raw / "segm_train_val_mp.lmdb", iter(values["masks"].items()))
    for split, name in (("train", "train_mp"), ("val", "val_mp"), ("unlabeled", "train_complete")):
        torch.save(values[split], raw / f"datalist_{name}.pt")
    for split in ("train", "val"):
        torch.save(values["ids"], raw / f"path2id_{split}.pt")
    return raw


LISTS = {"train": "datalist_train_mp.pt", "val": "datalist_val_mp.pt", "unlabeled": "datalist_train_complete.pt"}


def prepare(raw: Path, **source: Any) -> ClipStore:
    clips = raw.parent / "clips"
    values = {
        "source": {"layout": "lmdb", "lists": LISTS} | source,
        "height": 10,
        "width": 10,
        "workers": 1,
        "on_error": "fail",
    }
    run_stage("prepare_clips", values, raw=raw, clips=clips)
    return ClipStore(clips)


def test_both_hands_are_cut_out_around_the_box(tmp_path: Path) -> None:
    store = prepare(write(tmp_path / "raw"))
    assert {split: [clip.id for clip in store.select(split)] for split in LISTS} == {
        "train": ["a/0", "a/1", "a/2"],
        "val": ["a/3"],
        "unlabeled": ["a/4", "a/5"],
    }
    clip = store.get("a/1")
    np.testing.assert_array_equal(store.frames(clip)[0], frame(1)[2:12, 8:18])
    left, right = (store.of(side).masks(clip)[0] for side in ("left", "right"))
    np.testing.assert_array_equal(left, np.where(LEFT, LEFT - 16, 0)[2:12, 8:18])
    np.testing.assert_array_equal(right, RIGHT[2:12, 8:18])
    assert left.max() == 16 and right.max() == 16
    assert clip.meta == {"path": f"{PREFIX}a/1.jpg", "hands": "interacting", "box": [8.0, 2.0, 10.0, 10.0]}
    assert store.mirror_swaps == (("left", "right"),)
    assert store.maps["left"].classes == store.maps["right"].classes and store.maps["left"].num_classes == 17
    assert store.get("a/4").maps == () and store.get("a/3").meta["hands"] == "right"


def test_a_box_over_the_border_has_no_label_there_and_becomes_a_square(tmp_path: Path) -> None:
    def over(values: Values) -> None:
        values["train"][0]["bbox"] = [24, 12, 10, 6]  # its square: x 24 to 34 of 30, y 10 to 20

    store = prepare(write(tmp_path / "raw", over))
    clip = store.get("a/0")
    np.testing.assert_array_equal(store.frames(clip)[0, :, :6], frame(0)[10:20, 24:30])
    assert not store.frames(clip)[0, :, 6:].any()
    mask = store.of("left").masks(clip)[0]
    assert (mask[:, 6:] == 255).all() and not mask[:, :6].any()


def test_lists_of_json_say_the_same_and_mini_splits_are_drawn_by_seed(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw")
    for name in LISTS.values():
        entries = torch.load(raw / name, weights_only=False)
        lines = [json.dumps(one | {"bbox": [float(value) for value in one["bbox"]]}) for one in entries]
        (raw / name).with_suffix(".jsonl").write_text("\n".join(lines) + "\n")
    (raw / "ids.json").write_text(json.dumps({f"a/{number}": 40 + number for number in range(4)}))
    lists = {split: name.replace(".pt", ".jsonl") for split, name in LISTS.items()}
    sources = (
        HandLmdbSource(lists=LISTS),
        HandLmdbSource(lists=lists, ids=dict.fromkeys(("train", "val"), "ids.json")),
    )
    one, other = (source.listing(raw, height=10, width=10, seed=0) for source in sources)
    assert [vars(clip) | {"load": clip.load.args} for clip in one.clips] == [
        vars(clip) | {"load": clip.load.args} for clip in other.clips
    ]
    assert len(one.clips) == 6
    drawn = [
        HandLmdbSource(lists=LISTS, most=2).listing(raw, height=10, width=10, seed=seed) for seed in (1, 1, 2, 3)
    ]
    ids = [[clip.id for clip in listing.clips if clip.split == "train"] for listing in drawn]
    assert ids[0] == ids[1] and all(len(some) == 2 for some in ids) and len(set(map(tuple, ids))) > 1
    assert one.clips[-1].id == "a/5" and [clip.id for clip in one.clips[2:4]] == ["a/2", "a/3"]


class Runs:
    """What a pickle in a list would do when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("ran",)


def no_right_hand(values: Values) -> None:
    del values["masks"]["41__r"]


def smaller_left_hand(values: Values) -> None:
    values["masks"]["41__l"] = png(LEFT[:-4])


def swapped_hands(values: Values) -> None:
    values["masks"]["40__l"], values["masks"]["40__r"] = values["masks"]["40__r"], values["masks"]["40__l"]


BAD: dict[str, tuple[Callable[[Values], object], str]] = {
    "an image that is not there": (
        lambda v: v["images"].pop(f"{PREFIX}a/1.jpg"),
        r"interhand.lmdb: key .*a/1.* not found",
    ),
    "a mask of one hand alone": (no_right_hand, r"segm_train_val_mp.lmdb: key '41__r' not found; fix the list"),
    "a mask of another size": (
        smaller_left_hand,
        r"\.lmdb: 41__l: is 30x16, .* is 30x20 \(width x height\); export both",
    ),
    "swapped hands": (
        swapped_hands,
        r"'40__l' holds the value 16; allowed are 0, 17 to 32.*left and right are swapped",
    ),
    "ids out of range": (
        lambda v: v["masks"].update({"40__r": png(RIGHT + 40)}),
        r"'40__r' holds the value 40; allowed are 0, 1 to 16, and 255",
    ),
    "a mask in colours": (
        lambda v: v["masks"].update({"40__r": png(frame(0))}),
        r"'40__r' holds colours; store class",
    ),
    "an image that is cut": (
        lambda v: v["images"].update({f"{PREFIX}a/0.jpg": png(frame(0))[:300]}),
        r"interhand.lmdb: .*a/0.jpg: the image is damaged",
    ),
    "a box outside the image": (
        lambda v: v["train"][0].update(bbox=[40, 2, 10, 10]),
        r"a/0.jpg: box \[40.0, 2.0, 10.0, 10.0\] is outside the image of 30x20",
    ),
    "a box as large as a house": (
        lambda v: v["train"][0].update(bbox=[0, 0, 9e9, 9e9]),
        r"far larger than the image",
    ),
    "a hand of another kind": (
        lambda v: v["val"][0].update(hand_type="foot"),
        r"entry 0: hand_type 'foot'; allowed",
    ),
    "no box": (
        lambda v: v["val"][0].pop("bbox"),
        r"datalist_val_mp.pt: entry 0: bbox is missing; required: img_path",
    ),
    "no list": (lambda v: v.update(val={"a": 1}), r"datalist_val_mp.pt: expected a list of images, got dict"),
    "an image in two lists": (
        lambda v: v["val"].append(entry(1)),
        r"clip id 'a/1' occurs twice \(splits train and val",
    ),
    "a table of ids that is none": (
        lambda v: v.update(ids=[1, 2]),
        r"path2id_train.pt: not a table of ids by path",
    ),
    "a pickle in a list": (
        lambda v: v["val"].append(Runs()),
        r"datalist_val_mp.pt: loading it could run code .*python recipes/hands/list_to_jsonl.py --trust ",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_data_is_one_line_and_leaves_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    change, line = BAD[what]
    raw = write(tmp_path / "raw", change)
    with pytest.raises(MaskcastError, match=line) as caught:
        prepare(raw)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]  # no clips, and no folder that a pickle made


def cut(raw: Path) -> None:
    file = raw / "interhand.lmdb/data.mdb"
    os.truncate(file, file.stat().st_size - 4096)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an LMDB that is cut": (cut, r"data.mdb: truncated: \d+ of \d+ bytes; copy it again"),
    "an LMDB that is none": (
        lambda raw: (raw / "interhand.lmdb/data.mdb").write_bytes(b"x" * 9000),
        r"not an LMDB that can be read",
    ),
    "no LMDB": (
        lambda raw: (raw / "interhand.lmdb/data.mdb").unlink(),
        r"interhand.lmdb: LMDB not found; give the file",
    ),
    "no list": (
        lambda raw: (raw / "datalist_val_mp.pt").unlink(),
        r"datalist_val_mp.pt: no such list; fix source.lists",
    ),
    "a list that is cut": (
        lambda raw: os.truncate(raw / "datalist_val_mp.pt", 400),
        r"datalist_val_mp.pt: not a list that can be read .*copy it again",
    ),
}


@pytest.mark.parametrize("what", FILES)
def test_damaged_files_are_one_line_and_leave_nothing(what: str, tmp_path: Path) -> None:
    damage, line = FILES[what]
    damage(write(tmp_path / "raw"))
    with pytest.raises(MaskcastError, match=line):
        prepare(tmp_path / "raw")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_what_one_sample_lacks_leaves_the_others(tmp_path: Path) -> None:
    def lack(values: Values) -> None:
        no_right_hand(values)
        del values["ids"]["a/2"]
        values["unlabeled"][1]["bbox"] = [0, 0, float("nan"), 3]

    raw = write(tmp_path / "raw", lack)
    values = {"source": {"layout": "lmdb", "lists": LISTS}, "height": 10, "width": 10, "workers": 1}
    run_stage("prepare_clips", values, raw=raw, clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert [clip.id for clip in store.clips] == ["a/0", "a/3", "a/5"]
    reasons = " ".join(one["reason"] for one in store.skipped)
    assert "has no id of 'a/2'; add it" in reasons and "has no size" in reasons and "'41__r'" in reasons


WRITER = """
import lmdb, sys
with lmdb.open(sys.argv[1], map_size=1 << 24) as other, other.begin(write=True) as writing:
    writing.put(b"half", b"done")
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_writer_that_holds_the_lock_is_not_waited_for(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw")
    command = [sys.executable, "-c", WRITER, str(raw / "interhand.lmdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "locked\n"
        store = prepare(raw)
        writer.communicate("")
    assert writer.returncode == 0
    assert len(store.clips) == 6


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"height": None, "width": None}, "set height and width of prepare_clips to the same"),
        ({"width": 12}, "squares"),
    ],
)
def test_crops_are_squares_of_one_size(tmp_path: Path, values: Values, line: str) -> None:
    (tmp_path / "raw").mkdir()
    given = {"source": {"layout": "lmdb"}, "height": 10, "width": 10} | values
    with pytest.raises(MaskcastError, match=line):
        run_stage("prepare_clips", given, raw=tmp_path / "raw", clips=tmp_path / "clips")
