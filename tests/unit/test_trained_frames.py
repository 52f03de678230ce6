"""A model knows the frames that it was trained on, and scores on them are said to be too high."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import SMALL_DETECTOR, moving_squares, write_detection_set, write_store

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.trained_frames import NAME, count_trained, write_trained_frames
from maskcast.errors import MaskcastError
from maskcast.labels import LOOKBACK, MASK, single_map
from maskcast.registry.bundle import read_bundle, write_bundle
from maskcast.registry.kinds import SegmenterDescription
from maskcast.runner.run import run_stage
from maskcast.training.finish import finish_training
from maskcast.training.schedule import TrainingParams
from maskcast.training.task import Task

TRAINING = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "learning_rate": 1e-3, "precision": "fp32"}
MASKER = {"model": {"arch": "unet", "width": 4}, "training": TRAINING}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def write_photographs(root: Path, val: str, meta: Mapping[str, Any] | None = None) -> Path:
    """Writes a store of four photographs, called a to d, two of them of split val."""
    with ClipWriter(root, height=32, width=48, maps=single_map(["background", "a", "b"]), meta=meta) as writer:
        for seed, name in enumerate("abcd"):
            frames, masks = moving_squares(seed, 1, 32, 48)
            split = "val" if name in val else "train"
            layers = {MASK: masks}
            writer.add(name, split=split, kind="labelled", frames=frames, masks=layers, meta={"stride": 1})
    return root


def train(clips: Path, out: Path, start: Path | None = None) -> Path:
    out.mkdir()
    given = {} if start is None else {"start": start}
    run_stage("train_masker", MASKER, clips=clips, masker=out / "masker", metrics=out / "metrics.json", **given)
    return out / "masker"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores with a and b, or with c and d, as val, and a masker that was trained on the other two of each."""
    folder = tmp_path_factory.mktemp("photographs")
    stores = {val: write_photographs(folder / val, val) for val in ("ab", "cd")}
    return stores | {f"masker {val}": train(stores[val], folder / f"of {val}") for val in stores}


def test_a_training_that_goes_on_says_that_its_validation_was_trained_on(
    photographs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masker = photographs["masker cd"]
    again = train(photographs["ab"], tmp_path / "again", masker)
    said = f"warning: {masker}: was trained on 2 of 2 validation clips, so validation scores are too high"
    assert said in capsys.readouterr().err
    unseen = train(photographs["cd"], tmp_path / "unseen", masker)
    assert "was trained on" not in capsys.readouterr().err
    assert len(np.load(unseen / NAME)) == 2  # the same photographs as before
    assert (unseen / NAME).read_bytes() == (masker / NAME).read_bytes()
    best_epoch = json.loads((tmp_path / "again/metrics.json").read_text())["best_epoch"]
    assert len(np.load(again / NAME)) == (4 if best_epoch else 2)  # epoch 0 is the masker that it started from


def test_models_of_before_say_nothing_and_damaged_lists_are_refused(
    photographs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = shutil.copytree(photographs["masker cd"], tmp_path / "old")
    (old / NAME).write_bytes(b"no array")
    with pytest.raises(
        MaskcastError, match=rf"{NAME}: not a list of hashes of frames .*remove it, or train again"
    ):
        train(photographs["ab"], tmp_path / "damaged", old)
    (old / NAME).unlink()
    train(photographs["ab"], tmp_path / "out", old)
    assert "was trained on" not in capsys.readouterr().err


def test_scores_of_masks_of_trained_frames_are_said_to_be_too_high(
    photographs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for val, scored in (("cd", "ab"), ("ab", "ab")):
        clips, masker, out = photographs[scored], photographs[f"masker {val}"], tmp_path / val
        out.mkdir()
        run_stage("generate_masks", {}, clips=clips, masker=masker, masks=out / "masks", metrics=out / "m.json")
        ports = {"masks": out / "masks", "masker": masker, "metrics": out / "v.json", "report": out / "report"}
        run_stage("evaluate_video", {}, clips=clips, **ports, page=out / "page.html")
        said = "masker was trained on 2 of 2 scored clips, so its scores are too high; score clips "
        assert (f"warning: the {said}" in capsys.readouterr().err) == (val != scored)
        assert (said in (out / "report/README.md").read_text()) == (val != scored)
        assert (said in (out / "page.html").read_text()) == (val != scored)


def test_many_maskers_are_compared_with_notes(
    photographs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for val in ("ab", "cd"):
        shutil.copytree(photographs[f"masker {val}"], tmp_path / "grid" / val)
    clips, out = str(photographs["ab"]), tmp_path / "many"
    assert main(["evaluate-many", str(tmp_path / "grid"), "--clips", clips, "--out", str(out)]) == 0
    said, page = capsys.readouterr().out, (out / "index.html").read_text()
    for text in (said, page):
        assert "d was trained on 2 of 2 scored clips" in text
        assert "b was trained on" not in text
    assert "test clips, which `--split test` scores, select nothing" in page


def test_clips_that_look_back_are_said_where_masks_are_scored(
    photographs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, masker = write_photographs(tmp_path / "clips", "ab", {LOOKBACK: 1}), photographs["masker cd"]
    masks, report = tmp_path / "masks", tmp_path / "report"
    run_stage("generate_masks", {}, clips=clips, masker=masker, masks=masks, metrics=tmp_path / "m.json")
    run_stage("evaluate_video", {}, clips=clips, masks=masks, metrics=tmp_path / "v.json", report=report)
    said = "lips of val may begin with frames of the split before, e.g. of train (source.lookback), so scores of a"
    assert f"warning: c{said}" in capsys.readouterr().err and f"C{said}" in (report / "README.md").read_text()
    ports = {"masks": masks, "masker": masker, "metrics": tmp_path / "w.json", "report": tmp_path / "other"}
    run_stage("evaluate_video", {}, clips=clips, **ports)
    assert "the masker was trained on" not in capsys.readouterr().err  # said by the line above


def test_a_forecaster_knows_the_frames_of_both_its_trainings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_store(tmp_path / "clips", train=2, val=2)
    clips = dict.fromkeys(("clips", "masks", "masker"), store.root)
    values = {"training": TRAINING, "model": {"arch": "convlstm", "hidden": 4, "stride": 4}}
    pretrained, forecaster = tmp_path / "pretrained", tmp_path / "forecaster"
    run_stage("pretrain_forecaster", values, **clips, pretrained=pretrained, metrics=tmp_path / "p.json")
    turned = ClipStore(turn(store, tmp_path / "turned"))
    others = dict.fromkeys(("clips", "masks", "masker"), turned.root)
    tuned = {"pretrained": pretrained, "forecaster": forecaster, "metrics": tmp_path / "f.json"}
    run_stage("finetune_forecaster", {"training": TRAINING}, **others, **tuned)
    said = f"warning: {pretrained}: was trained on 2 of 2 validation clips"
    assert said in capsys.readouterr().err
    assert len(np.load(pretrained / NAME)) == 6  # frames 1, 9 and 17 of both clips
    for name, one in (("one", clips), ("other", others)):
        outputs = {"metrics": tmp_path / f"{name}.json", "report": tmp_path / name}
        run_stage("evaluate", {"context": "truth", "pictures": 0}, **one, forecaster=pretrained, **outputs)
        said = "forecaster was trained on 2 of 2 scored clips"
        assert (said in capsys.readouterr().err) == (name == "other")
        assert (said in (tmp_path / name / "README.md").read_text()) == (name == "other")
    short = {"context": "truth", "pictures": 0, "context_frames": 3, "horizon": 4}  # forecasts frames 4 to 7
    outputs = {"metrics": tmp_path / "short.json", "report": tmp_path / "short"}
    run_stage("evaluate", short, **others, forecaster=pretrained, **outputs)
    assert said in capsys.readouterr().err


def test_clips_are_compared_with_many_frames_at_once(tmp_path: Path) -> None:
    known_N = np.random.default_rng(0).integers(0, 2**64, 500_000, np.uint64)
    write_trained_frames(tmp_path, [known_N])
    clips = [np.array([k, known_N[k]] if k % 2 else [k], np.uint64) for k in range(2_000)]
    before = time.process_time()
    assert count_trained(tmp_path, lambda: [*clips, np.empty(0, np.uint64)]) == (1_000, 2_001)
    assert time.process_time() - before < 20  # 500 s if the frames of the model are sorted for each clip
    assert count_trained(tmp_path, list) == (0, 0)


class Line(Task):
    """Fits a line, and keeps for which splits it was asked for hashes of frames."""

    fingerprint, monitor = "a line", "score"

    def __init__(self) -> None:
        self.model, self.read, self.validated = torch.nn.Linear(1, 1), list[str](), 0

    def batch(self, step: int) -> torch.Tensor:
        return torch.ones(2, 1) * step

    def loss(self, batch: torch.Tensor, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        return self.model(batch).square().mean(), {}

    def validate(self) -> dict[str, float]:
        self.validated += 1
        return {"score": float(self.validated)}

    def frame_hashes(self, split: str) -> list[np.ndarray]:
        self.read.append(split)
        return [np.array([1, 2], np.uint64)]


@pytest.mark.parametrize(("rank", "read"), [("0", ["val", "train"]), ("1", [])])
def test_of_several_processes_only_the_first_reads_frames(
    rank: str, read: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, out, task = tmp_path / "start", tmp_path / "out", Line()
    start.mkdir()
    write_trained_frames(start, [np.array([2, 3], np.uint64)])
    monkeypatch.setenv("RANK", rank)
    schedule = TrainingParams(epochs=1, steps_per_epoch=2, batch_size=2, learning_rate=1e-3, precision="fp32")
    ports = {"out": out, "metrics": tmp_path / "metrics.json", "start": start}
    finish_training("line", task, schedule, tmp_path / "resume", save=Path.mkdir, results=dict, **ports)
    assert task.read == read
    assert (out / NAME).exists() == bool(read)


def turn(store: ClipStore, root: Path) -> Path:
    """Writes a store with the clips of train as val, and those of val as train."""
    with ClipWriter(root, height=32, width=48, maps=single_map(store.classes)) as writer:
        for clip in store.clips:
            split = {"train": "val", "val": "train"}[clip.split]
            layers = {MASK: store.masks(clip)}
            writer.add(clip.id, split=split, kind="labelled", frames=store.frames(clip), masks=layers)
    return root


def test_a_detector_knows_its_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = write_detection_set(tmp_path / "set", train=3, val=2)
    phases = [{"learning_rate": 0.02, "epochs": 1}]
    training = {"phases": phases, "steps_per_epoch": 1, "batch_size": 2, "precision": "fp32"}
    detector = tmp_path / "detector"
    values = {"model": SMALL_DETECTOR, "training": training}
    run_stage("train_detector", values, dataset=dataset, detector=detector, metrics=tmp_path / "m.json")
    for split in ("val", "train"):
        outputs = {"metrics": tmp_path / f"{split}.json", "report": tmp_path / split}
        outputs["page"] = tmp_path / f"{split}.html"
        run_stage("evaluate_detector", {"split": split}, dataset=dataset, detector=detector, **outputs)
        said = "detector was trained on 3 of 3 scored images"
        assert (f"warning: the {said}" in capsys.readouterr().err) == (split == "train")
        for text in ((tmp_path / split / "README.md").read_text(), (tmp_path / f"{split}.html").read_text()):
            assert (said in text) == (split == "train")


def test_the_list_travels_with_a_registered_model(photographs: dict[str, Path], tmp_path: Path) -> None:
    masker = photographs["masker cd"]
    about = SegmenterDescription(
        precision="fp32", height=32, width=48, classes=("background", "a", "b"), label_map=MASK
    )
    digest = write_bundle(tmp_path / "data", about, {"segmenter": masker})
    assert read_bundle(tmp_path / "data", digest).kind == "segmenter"
    assert (tmp_path / "data/segmenter" / NAME).read_bytes() == (masker / NAME).read_bytes()
