"""maskcast labels review: labels that a masker contradicts confidently, by a masker that was really trained."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import moving_squares

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.inference.label_review import doubted_pixels
from maskcast.labels import IGNORE, MASK, single_map
from maskcast.params import validate
from maskcast.stages.train_masker import TrainMasker, train_masker

CLASSES = ("background", "red", "blue")
SWAPPED = [("val_0", 5), ("val_0", 16), ("val_1", 2)]  # frames in which somebody took red for blue
START = {"train_0": 0, "train_1": 0, "val_0": 0, "val_1": 0, "val_2": 11}  # val_2 shows half of val_1 again
TRAINING = {"epochs": 1, "steps_per_epoch": 60, "batch_size": 8, "learning_rate": 0.01}


def write_clips(root: Path, swapped: list[tuple[str, int]]) -> ClipStore:
    """Writes two clips to train on and three to review, the last two of one video; some frames have no label."""
    meta = {"labelled_frames": ["mask"]}
    with ClipWriter(root, height=32, width=48, maps=single_map(CLASSES), meta=meta) as writer:
        for name, start in START.items():
            video = {"val_2": "val_1"}.get(name, name)
            frames, masks = moving_squares(sum(video.encode()), 33, 32, 48)
            frames, masks = frames[start : start + 22], masks[start : start + 22]
            for t in range(22):
                if (video, start + t) in swapped:
                    masks[t] = np.array([0, 2, 1])[masks[t]]
            labelled = [t for t in range(22) if (start + t) % 7 != 1]
            masks[[t for t in range(22) if t not in labelled]] = IGNORE
            meta = {"video": video, "start": start, "stride": 1, "labelled_frames": {"mask": labelled}}
            split = name.partition("_")[0]
            writer.add(name, split=split, kind="labelled", frames=frames, masks={MASK: masks}, meta=meta)
    return ClipStore(root)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clips`, whose labels of `val` have three mistakes, and a masker trained on the others."""
    root = tmp_path_factory.mktemp("review")
    write_clips(root / "clips", SWAPPED)
    params = validate(TrainMasker, {"model": {"arch": "unet", "width": 8}, "training": TRAINING}, "")
    train_masker(clips=root / "clips", masker=root / "masker", metrics=root / "metrics.json", params=params)
    return root


def reviewed(folder: Path, output: Path, *words: str) -> list[dict[str, str]]:
    given = ["--clips", folder / "clips", "--masker", folder / "masker", "--output", output]
    assert main(["labels", "review", *map(str, given), *words]) == 0
    with (output / "frames.csv").open() as file:
        return list(csv.DictReader(file))


def test_swapped_labels_come_first(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = reviewed(folder, tmp_path / "review", "--budget", "6")
    assert f"frames of split val to review: {tmp_path / 'review'}" in capsys.readouterr().out
    assert sorted((row["clip"], int(row["frame"])) for row in rows[:3]) == SWAPPED
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert scores[2] > 2 * max([0.1, *scores[3:]]), "about half of the pixels are above the mean confidence"
    for row in rows[:3]:
        assert {"red and blue", "blue and red"} & {
            part.partition(" (")[0] for part in row["label_and_masker"].split("; ")[:2]
        }
    page = (tmp_path / "review/frames.html").read_text()
    assert page.count("<img ") == len(rows)
    assert page.index(f"{rows[0]['clip']}, frame {rows[0]['frame']}: score {scores[0]:.3f}, ")
    keys = dict(re.findall('aria-label="Colours of ([a-z]*)">(.*?)</ul>', page))
    named = {name: re.findall("</svg>([^<]*)</li>", key) for name, key in keys.items()}
    assert named == {"classes": ["red", "blue"], "errors": ["right", "missed", "false alarm", "wrong class"]}
    assert "confident of red from" in page
    once = 19 + 19 + 9  # frames of val_0 and val_1, and those of val_2 that val_1 does not show
    assert re.search(rf">labelled frames</th><td[^>]*>{once}</td>", page)


def test_the_list_goes_to_a_labelling_tool(folder: Path, tmp_path: Path) -> None:
    reviewed(folder, tmp_path / "review", "--budget", "3")
    clips = str(folder / "clips")
    words = ["labels", "export", "--format", "coco", "--masks", clips, "--clips", clips]
    assert main([*words, "--frames", str(tmp_path / "review/frames.csv"), "--output", str(tmp_path / "out")]) == 0
    names = {path.name for path in (tmp_path / "out/images").iterdir()}
    assert names == {f"{clip}_{t:06d}.png" for clip, t in SWAPPED}


def test_a_masker_that_agrees_lists_nothing_of_a_label_that_it_learned(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = reviewed(folder, tmp_path / "review", "--split", "train")
    assert all(float(row["score"]) < 0.3 for row in rows)
    assert "warning: a masker agrees with mistakes that it was trained on" in capsys.readouterr().err
    given = ["--clips", str(folder / "clips"), "--masker", str(folder / "masker"), "--output", str(tmp_path / "o")]
    assert main(["labels", "review", *given, "--split", "test"]) == 2
    assert "holds no labelled clips in split 'test'" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_pixels_without_label_and_predictions_below_the_threshold_are_not_doubted() -> None:
    label = np.array([[0, 1, 2, IGNORE, 1]], np.uint8)
    mask = np.array([[1, 1, 1, 1, 2]], np.uint8)
    confidence = np.array([[0.9, 0.9, 0.4, 0.9, 0.99]], np.float32)
    doubted = doubted_pixels(label, mask, confidence, np.array([0.5, 0.5, 2.0]))
    assert doubted.tolist() == [[True, False, False, False, False]]
