"""docs/labels.md as written, with what people do in between: suggest, export, correct, import, train."""

import csv
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tests.conftest import moving_squares
from tests.documented import commands
from tests.integration.project import ROOT, Project

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.images import read_image
from maskcast.labels import IGNORE, MASK, single_map
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.runner.run import run_stage

# of labels; what recipes do is run by the tests of recipes
COMMANDS = [one for one in commands() if one.file == "docs/labels.md" and one.words[0] == "maskcast"]


def write_project(folder: Path) -> None:
    """Writes what a run leaves: raw data of twice the size, clips, generated masks and a masker, and params."""
    for k, name in enumerate(("train_0", "val_0", "unlabeled_0", "unlabeled_1", "unlabeled_2")):
        frames, masks = moving_squares(100 + k, 22, 32, 48)
        for t, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            for kind, pixels in {"images": frame, "masks": mask}.items():
                if kind == "images" or not name.startswith("unlabeled"):
                    file = folder / "data/raw" / kind / name / f"{t:05d}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(pixels).save(file)
    source = {
        "layout": "frame_folders",
        "images": "images/{clip}",
        "masks": "masks/{clip}",
        "encoding": "index",
        "classes": ["background", "red", "blue"],
        "splits": {"val": ["val_0"], "unlabeled": ["unlabeled_0", "unlabeled_1", "unlabeled_2"]},
    }
    training = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 0.001}
    params = {
        "prepare_clips": {"source": source, "height": 16, "width": 24, "workers": 1},
        "train_masker": {"model": {"arch": "unet", "width": 4}, "training": training},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run_stage("prepare_clips", params["prepare_clips"], raw=folder / "data/raw", clips=folder / "data/clips")
    store = ClipStore(folder / "data/clips")
    with ClipWriter(folder / "data/masks", height=16, width=24, maps=single_map(store.classes)) as writer:
        for k, clip in enumerate(store.clips):
            masks = {MASK: moving_squares(k, 22, 16, 24)[1]}
            confidence = {MASK: np.full_like(masks[MASK], 200)}
            kind = {"split": clip.split, "kind": clip.kind, "meta": clip.meta}
            writer.add(clip.id, masks=masks, confidence=confidence, **kind)
    torch.manual_seed(0)
    config = UNetConfig(width=4)
    save_masker(folder / "models/masker", config.build(single_map(store.classes)), config, {})


def correct(folder: Path) -> None:
    """Does what people do in a tool, once it has something: hands CVAT's archive on, and submits predictions."""
    if (folder / "labels/to-cvat").is_dir() and not (folder / "labels/corrected.zip").exists():
        with zipfile.ZipFile(folder / "labels/corrected.zip", "w") as archive:
            archive.write(folder / "labels/to-cvat/annotations.xml", "annotations.xml")
    if (folder / "labels/to-label-studio").is_dir():
        tasks = json.loads((folder / "labels/to-label-studio/tasks.json").read_text())
        for task in tasks:
            task["annotations"] = [{"result": task["predictions"][0]["result"], "was_cancelled": False}]
        (folder / "labels/export.json").write_text(json.dumps(tasks))


def test_the_way_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path
) -> None:
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert [command.words[1] for command in COMMANDS].count("labels") >= 6
    for command in COMMANDS:
        assert main(command.words[1:]) == 0, command
        correct(tmp_path)
    with (tmp_path / "labels/suggested/frames.csv").open() as file:
        asked = {(row["clip"], int(row["frame"])) for row in csv.DictReader(file)}
    generated = ClipStore(tmp_path / "data/masks")
    for name in ("to-cvat", "to-label-studio"):
        images = list((tmp_path / "labels" / name / "images").iterdir())
        assert {read_image(file).shape for file in images} == {(32, 48, 3)}
        assert len(images) == len(asked)
    for name in ("labelled", "labelled-2"):
        found = ClipStore(tmp_path / "data" / name)
        for clip in found.select("train"):
            for t, mask in enumerate(found.masks(clip)):
                if (clip.id, t) in asked:
                    np.testing.assert_array_equal(mask, generated.masks(generated.get(clip.id))[t])
                else:
                    assert clip.id == "train_0_00000" or (mask == IGNORE).all()
    with (tmp_path / "labels/suggested-2/frames.csv").open() as file:
        again = {(row["clip"], int(row["frame"])) for row in csv.DictReader(file)}
    assert not asked & again, "a frame that has labels is not asked for again"


def test_the_stage_of_the_documentation_puts_corrected_labels_into_the_pipeline(tmp_path: Path) -> None:
    text = (ROOT / "docs/labels.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "import_labels:" in one)
    told = yaml.safe_load(block)["stages"]
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["prepare_clips"]
    changed = json.dumps({name: ours[name] for name in told["prepare_clips"]}).replace(
        "data/clips", "data/prepared"
    )
    assert told["prepare_clips"] == json.loads(changed)

    write_project(tmp_path)
    project = Project(tmp_path, ROOT)
    words = (
        "--format cvat-images --masks data/masks --clips data/clips --frames frames.csv --output labels/to-cvat"
    )
    (tmp_path / "frames.csv").write_text("clip,frame\nunlabeled_0_00000,3\n")
    project.run("maskcast", "labels", "export", *words.split())
    correct(tmp_path)
    (tmp_path / "data/clips").rename(tmp_path / "data/prepared")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"import_labels": told["import_labels"]}}))
    project.run("git", "init", "--quiet")
    project.dvc("init", "--quiet")
    project.dvc("repro")
    clip = ClipStore(tmp_path / "data/clips").get("unlabeled_0_00000")
    assert (clip.split, clip.kind) == ("train", "labelled")
    assert "didn't change, skipping" in project.dvc("repro")
    with zipfile.ZipFile(tmp_path / "labels/corrected.zip", "a") as archive:
        archive.comment = b"again"
    assert "Running stage 'import_labels'" in project.dvc("repro")
