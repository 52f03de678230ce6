"""The scripts of the recipes, each from beginning to end with small values."""

import csv
import json
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.conftest import ROOT, write_detection_set
from tests.integration.project import SMALL_SSL, Project, shrink_detection

from maskcast.__main__ import main
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.video_files.frames import count_frames
from maskcast.registry.loading import load_address, pipeline_of
from maskcast.runner.run import run_stage

SCRIPTS = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("recipes/*/*.py")}
TESTED = {
    "recipes/clevrer-frames/real_frames.py",
    "recipes/detection/overfit.py",
    "recipes/few-labels/budget.py",
    "recipes/few-labels/budget_page.py",  # in tests/unit/test_budget_page.py, too
    "recipes/few-labels/compare.py",
    "recipes/hands/list_to_jsonl.py",  # in tests/unit/test_hands_recipe.py, as the next two
    "recipes/hands/make_lmdb.py",
    "recipes/hands/real.py",
    "recipes/hands/steps.py",
    "recipes/reference/results.py",
    "recipes/sample/make.py",
    "recipes/video/davis_green.py",
    "recipes/video/memories.py",
}
SHORT = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 2, "warmup_steps": 0}
MASKERS = ("train_masker", "second_masker", "first", "second")  # sections that arms change
SMALL = {"height": 32, "width": 48, "workers": 1}
Recipe = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Recipe:
    """Copies a recipe's folder into a Git repository of its own and goes there; its values are made small."""
    monkeypatch.setattr(subprocess, "run", partial(run_here, subprocess.run))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def copy(name: str) -> Path:
        folder = tmp_path / name
        made = shutil.ignore_patterns(".dvc", "data", "models", "results", "ml*", "release")
        shutil.copytree(ROOT / "recipes" / name, folder, ignore=made)
        for path in folder.glob("*.yaml"):
            if path.name != "dvc.yaml":
                values = shrunk(yaml.safe_load(path.read_text()))
                path.write_text(yaml.safe_dump(values, sort_keys=False))
        git = Project(folder)
        git.run("git", "init", "--quiet")
        git.commit("small")
        shutil.copy(empty_database, folder / "mlflow.db")
        monkeypatch.chdir(folder)
        return folder

    return copy


def run_here(run: Callable[..., Any], command: Sequence[str], **options: Any) -> Any:
    """Does `dvc repro` and `maskcast` in this process, which has imported torch; ``run`` does other commands.

    `dvc repro` is what it is where nothing is cached: the stages' commands one after the other.
    """
    program, *words = command
    if program == "dvc":
        assert words[0] == "repro" and options == {"cwd": Path.cwd(), "check": True}
        for name, stage in yaml.safe_load(Path("dvc.yaml").read_text())["stages"].items():
            for line in [stage["cmd"]] if isinstance(stage["cmd"], str) else stage["cmd"]:
                told = shlex.split(line)
                assert told[0] != "maskcast" or main(told[1:]) == 0
            if [name] == words[1:]:
                break
        return None
    if words[:2] == ["-m", "maskcast"]:
        assert options == {"cwd": Path.cwd(), "check": True}
        assert main(words[2:]) == 0
        return None
    return run(command, **options)


def shrunk(params: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a recipe with sizes and counts that take seconds."""
    if "prepare_clips" in params:
        params["prepare_clips"] |= SMALL
        source = params["prepare_clips"].get("source", {"layout": ""})  # values that change others have none
        if source["layout"].startswith("synthetic"):
            source |= {"train": min(source["train"], 2), "val": 2}
            source |= {key: min(source[key], 2) for key in ("unlabeled", "hidden", "test") if key in source}
        if source["layout"] == "green_screen":
            source |= {"seconds": 0.25} | (
                {"figures": {"videos": 4, "backgrounds": 4}} if "figures" in source else {}
            )
    for changes in (arm[name] for arm in params.get("arms", {}).values() for name in MASKERS if name in arm):
        changes.pop("training", None)
        changes.pop("phases", None)
        if changes.get("unlabeled"):
            changes["unlabeled"] = {"batch_size": 2, "burn_in_steps": 1}
    for section in filter(lambda values: isinstance(values, dict), params.values()):
        if section.get("unlabeled"):
            section["unlabeled"] = {"batch_size": 2, "burn_in_steps": 1}
        if section.get("generated"):
            section["generated"] = {"threshold": 0}
        if section.get("phases"):
            section["phases"] = [{"epochs": 1, "generated": 0.5}]
        if section.get("amodal"):
            section["amodal"]["least_pixels"] = 1
        if "training" in section and "phases" not in section["training"]:
            section["training"] |= SHORT
        if section.get("model", {}).get("arch") == "unet":
            section["model"]["width"] = 4
        if section.get("model", {}).get("arch") == "recurrent":
            section["model"]["base"] = {"arch": "unet", "width": 4}
            section["window"] = {"frames": 4, "chunk": 2}
    if "pretrain_encoder" in params and "network" not in params["pretrain_encoder"]:
        params["pretrain_encoder"]["method"] = SMALL_SSL
    for name in {"train_masker", "second_masker"} & params.keys():
        params[name]["augment"] = {}
    if "evaluate" in params:
        params["evaluate"]["pictures"] = 0
    if "pretrain_forecaster" in params:
        params["pretrain_forecaster"]["model"] |= {"hidden": 8}
    return params


def run(monkeypatch: pytest.MonkeyPatch, script: Path, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, arguments)])
    monkeypatch.syspath_prepend(script.parent)  # as Python does for a script
    runpy.run_path(str(script), run_name="__main__")


def test_each_script_is_here() -> None:
    assert SCRIPTS == TESTED, "a new script of a recipe needs a test in this file"


def test_the_reference_results_are_a_table_of_both_inputs(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe("reference")
    before = (folder / "params.yaml").read_text()
    run(monkeypatch, folder / "results.py", "--seeds", "3")
    said = capfd.readouterr().out
    assert "| seeds 3 | mean | lowest to highest |" in said
    for row in ("**forecaster, Jaccard at frame 22**", "frames as input, then masked", "training of the masker"):
        assert f"| {row}" in said
    assert (folder / "params.yaml").read_text() == before


def test_objects_of_davis_stand_in_front_of_a_green_screen(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, davis = recipe("video"), tmp_path / "davis"
    for name, sky in {"bear": (40, 60, 200), "swan": (90, 90, 160)}.items():
        for kind in ("JPEGImages", "Annotations"):
            (davis / kind / "480p" / name).mkdir(parents=True)
        for t in range(6):
            mask = np.zeros((120, 214), np.uint8)
            mask[30:90, 40 + 5 * t : 100 + 5 * t] = 255
            frame = np.where(mask[..., None] > 0, (150, 90, 60), sky).astype(np.uint8)
            Image.fromarray(frame).save(davis / f"JPEGImages/480p/{name}/{t:05d}.jpg")
            Image.fromarray(mask).save(davis / f"Annotations/480p/{name}/{t:05d}.png")
    run(monkeypatch, folder / "davis_green.py", "--davis", davis, "--raw", tmp_path / "raw")
    said = capfd.readouterr().out
    bounds, soft = (float(cell) for cell in said.splitlines()[-1].split("|")[2:4])
    assert soft < bounds < 20
    values = yaml.safe_load((folder / "davis.yaml").read_text())["prepare_clips"]
    run_stage("prepare_clips", values, raw=tmp_path / "raw", clips=tmp_path / "clips")
    store = ClipStore(tmp_path / "clips")
    assert {clip.meta["background"] for clip in store.clips} == {"bear_00000", "swan_00000"}
    for clip in store.clips:
        alpha = store.of("alpha").masks(clip)
        assert alpha[:, 8:24].max() == 255 and alpha.mean() / 255 == pytest.approx(60 * 60 / (120 * 214), abs=0.01)


def test_few_labels_are_compared_from_both_starts(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe("few-labels")
    before = (folder / "params.yaml").read_text()
    run(monkeypatch, folder / "compare.py", "--seeds", "3", "--pretraining", "budget.yaml")
    said = capfd.readouterr().out
    assert "| | random | pretrained |" in said
    assert "| masker on 15 labelled clips, Jaccard, mean of seeds 3 | 0." in said
    assert said.count("clips, mean class accuracy |") == 4
    assert (folder / "params.yaml").read_text() == before


def test_hands_are_compared_and_go_on_where_they_were(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe("hands")
    arms = ["--seeds", "3", "--arms", "first network", "pseudo labels", "mean teacher"]
    run(monkeypatch, folder / "steps.py", *arms)
    said = capfd.readouterr().out
    assert said.count(", seed 3: miou 0.") == 3 and "| mean teacher | 0." in said
    assert "System 3, test mIoU: U-Net, CE 0.4980" in said
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("results/steps/params/*/train.json")}
    run(monkeypatch, folder / "steps.py", *arms)
    assert len(trained) == 3 and all(path.stat().st_mtime_ns == then for path, then in trained.items())
    (folder / "results/steps/params/first-network-3/train.json").unlink()  # killed before it came there
    capfd.readouterr()
    run(monkeypatch, folder / "steps.py", "--seeds", "3", "--arms", "first network")
    assert capfd.readouterr().out.startswith(said.partition("\n")[0])
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["first"]["model"]["width"] = 3
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    run(monkeypatch, folder / "steps.py", *arms)
    config = json.loads((folder / "results/steps/params/first-network-3/masker/config.json").read_text())
    assert config["model"]["width"] == 3
    assert all(path.stat().st_mtime_ns > then for path, then in trained.items())


def test_the_label_budget_is_a_page_and_goes_on_where_it_was(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe("few-labels")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["train_masker"]["loss"] |= {"background_weight": 0.0}  # so it finds objects to learn from
    params["train_masker"]["training"] |= {"learning_rate": 0.05, "steps_per_epoch": 8}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    arms = ["--seeds", "3", "--order", "suggested", "--arms", "scratch", "both, attributes", "--percent"]
    run(monkeypatch, folder / "budget.py", *arms, "25")
    assert "[2/2] both, attributes, suggested, 1 clips, seed 3: Jaccard 0." in capfd.readouterr().out
    trained = {path: path.stat().st_mtime_ns for path in folder.glob("results/budget/*/metrics.json")}
    run(monkeypatch, folder / "budget.py", *arms, "25", "50")
    assert "[4/4] both, attributes, suggested, 2 clips, seed 3: Jaccard 0." in capfd.readouterr().out
    assert len(trained) == 2 and all(path.stat().st_mtime_ns == then for path, then in trained.items())
    with (folder / "results/budget.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["arm"], row["percent"], row["clips"]) for row in rows} == {
        (arm, percent, clips)
        for arm in ("scratch", "both, attributes")
        for percent, clips in (("25.0", "1"), ("50.0", "2"))
    }
    page = (folder / "results/budget.html").read_text()
    assert page.count("<polyline") == 2 and "Classes with attributes: Jaccard" in page
    assert not list((folder / "data").glob("budget-*"))
    named = [
        json.loads((folder / f"results/budget/{one}/config.json").read_text())["model"]["width"]
        for one in ("scratch-suggested-1-3/masker", "both-attributes-suggested-2-3/masker")
    ]
    assert named == [4, 4]
    two = ["--percent", "25", "--arms", "scratch, attributes", "semi-supervised, attributes"]
    run(monkeypatch, folder / "budget.py", "--plan", "quick.yaml", "--seeds", "3", *two)
    with (folder / "results/quick.csv").open() as file:
        one_round, both_rounds = (float(row["minutes"]) for row in csv.DictReader(file))
    second = folder / "results/quick/semi-supervised-attributes-random-1-3"
    assert both_rounds > one_round and (second / "masker").exists()
    assert not (second / "first").exists()  # its first round is the arm of one
    with pytest.raises(SystemExit):
        run(monkeypatch, folder / "budget.py", "--plan", "gpu.yaml", "--arms", "scratch")
    assert "gpu.yaml has no arm 'scratch', but 'scratch, attributes', " in capfd.readouterr().err
    # of which an arm gets another name and other values
    plan = yaml.safe_load((folder / "quick.yaml").read_text())
    plan["arms"] = {"another": plan["arms"]["scratch, attributes"]}
    plan["arms"]["another"]["train_masker"]["training"] = {"learning_rate": 0.04}
    (folder / "quick.yaml").write_text(yaml.safe_dump(plan))
    quick = ["--plan", "quick.yaml", "--seeds", "3", "--percent", "25"]
    run(monkeypatch, folder / "budget.py", *quick)
    with (folder / "results/quick.csv").open() as file:
        assert [row["arm"] for row in csv.DictReader(file)] == ["another"]
    (folder / "results/quick/another-random-1-3/metrics.json").unlink()  # killed after the masker had come
    (folder / "results/quick/another-random-1-3/masker.json").unlink()
    run(monkeypatch, folder / "budget.py", *quick)
    assert (folder / "results/quick/another-random-1-3/masker.json").exists()
    plan["arms"]["another"]["train_masker"]["training"] = {"learning_rate": 0.03}
    (folder / "quick.yaml").write_text(yaml.safe_dump(plan))
    run(monkeypatch, folder / "budget.py", *quick, "--seeds", "4")
    with (folder / "results/quick.csv").open() as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["4"]  # seed 3 is of other values


def test_the_masker_of_real_frames_is_scored_in_four_ways(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe("clevrer-frames")
    before = (folder / "params.yaml").read_text()
    (folder / "wide.yaml").write_text("train_masker: {model: {width: 3}}\n")
    run(monkeypatch, folder / "real_frames.py", "--seeds", "3", "--values", "wide.yaml")
    said = capfd.readouterr().out
    assert "| 3 | simulated validation, each frame by itself | 0." in said
    assert said.count("| 3 | holdout, ") == 4
    assert json.loads((folder / "models/masker/config.json").read_text())["model"] == {"arch": "unet", "width": 3}
    with pytest.raises(SystemExit):
        run(monkeypatch, folder / "real_frames.py", "--values", "unlabeled.yaml")
    assert "unlabeled.yaml needs real videos: give --clevrer" in capfd.readouterr().err
    wrong = {
        "--forecasters nowhere": "--forecasters are scored on real videos: give --clevrer",
        "--clevrer nowhere": "--clevrer nowhere: folder not found; use that of CLEVRER's release",
        "--clevrer . --forecasters nowhere": "nowhere/config.json: no such model",
        "--values windows.yaml": "windows.yaml: section 'train_masker' is missing",
    }
    values = yaml.safe_load((folder / "holdout.yaml").read_text())
    values["prepare_clips"]["seed"] = 5
    (folder / "holdout.yaml").write_text(yaml.safe_dump(values))
    digest = ClipStore(folder / "data/holdout").digest
    runpy.run_path(str(folder / "real_frames.py"))["prepared"]("holdout", folder / "data/raw")
    assert ClipStore(folder / "data/holdout").digest != digest  # of other values, so made again
    for words, said in wrong.items():
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, folder / "real_frames.py", *words.split())
        assert said in f"{ended.value.code}{capfd.readouterr().err}"
    assert (folder / "params.yaml").read_text() == before


def test_the_sample_is_made_of_a_registered_pipeline(
    first_run: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(first_run.folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run(monkeypatch, ROOT / "recipes/sample/make.py", "candidate", "--output", tmp_path / "samples")
    scores = json.loads((tmp_path / "samples/sample.json").read_text())
    assert str(scores["jaccard_mean"]) in capfd.readouterr().out
    assert scores["frames"] == count_frames(tmp_path / "samples/sample.mp4") == 51  # 11 of them, 5 apart, are seen
    assert pipeline_of(load_address(str(tmp_path / "samples/pipeline"))).about.frame_stride == 5
    made = sorted((tmp_path / "samples").iterdir())
    with pytest.raises(SystemExit, match="error: "):
        run(monkeypatch, ROOT / "recipes/sample/make.py", "99", "--output", tmp_path / "samples")
    assert [path.name for path in made] == ["pipeline", "sample.json", "sample.mp4"]
    assert sorted((tmp_path / "samples").iterdir()) == made  # no version that there is, so the old sample stays


def test_kinds_of_memory_are_compared_with_their_base(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe("video")
    run(
        monkeypatch,
        folder / "memories.py",
        "--seeds",
        "3",
        "--versions",
        "control",
        "lstm V6",
        "--out",
        "compared",
    )
    lines = capfd.readouterr().out.strip().splitlines()[-5:]
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| base", "| control", "| lstm V6"]
    assert " +0.0000, +0.0000 | 1.00, 1.00 |" in lines[2]
    assert lines[3].split(" | ")[8:10] == ["+0.0000, +0.0000", "1.00, 1.00"]  # the control beside itself
    with Path("compared/rows.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3
    values = yaml.safe_load((folder / "params.yaml").read_text())
    values["prepare_clips"] |= {"width": 40}
    runpy.run_path(str(folder / "memories.py"))["prepare"](values, None, folder / "compared")
    assert ClipStore(folder / "compared/clips").width == 40  # of other values, so made again


def test_a_detector_is_overfitted_to_a_few_images(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe("detection")
    raw = write_detection_set(tmp_path / "raw", train=4)
    params = shrink_detection(yaml.safe_load((folder / "params.yaml").read_text()), raw)
    del params["prepare_detection"]["unlabeled"], params["train_detector"]["unlabeled"]
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    files = ("--annotations", "train.json", "--images", "images/train")
    run(monkeypatch, folder / "overfit.py", raw, *files, "--limit", "4")
    said = capfd.readouterr().out
    assert "red" in said and "blue" in said and '"cpu_minutes"' in said
