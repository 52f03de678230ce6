"""A grid by DVC's queue, in a Git repository, and by Kubeflow in processes: the same maskers, bit for bit."""

import csv
from pathlib import Path

import pytest
import yaml
from tests.integration.project import Project

from maskcast.__main__ import main
from maskcast.errors import MaskcastError
from maskcast.runner.dvc_queue import Experiment, Queue

GRID = {
    "stage": "train_masker",
    "split": "test",
    "variants": {
        "wide": {"train_masker.model": {"arch": "unet", "width": 6}},
        "fails": {"train_masker.training.learning_rate": 1e30},
        "seed": {"train_masker.training.seed": 1},
    },
}
SHARED = "grid-shared-"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The recipe of videos with small params, committed, after `maskcast grid`; one of three variants failed."""
    project = Project.copy_to(tmp_path_factory.mktemp("grid"))
    place = project.video()
    (place.folder / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    project.run("git", "init", "--quiet")
    project.commit("a grid")
    said = place.run("sh", "-c", "maskcast grid grid.yaml --jobs 2; test $? = 1")
    assert "once for all: fetch_dataset, prepare_clips; for each: train_masker\n" in said
    assert "left out fails: failed: step " in said and "failed (3 of 3 have ended)" in said
    assert place.run("git", "status", "--porcelain") == ""
    return place


def rows(folder: Path) -> dict[str, dict[str, str]]:
    """Returns the scores of a page's folder by variant, but for what a clock measures."""
    page = (folder / "index.html").read_text()
    assert "fails" in page and "training diverged" in page
    with (folder / "scores.csv").open() as file:
        found = {row["model"]: row for row in csv.DictReader(file)}
    return {
        name: {key: value for key, value in row.items() if "_m" not in key and key != "device"}
        for name, row in found.items()
    }


def test_kubeflow_and_dvc_give_the_same_maskers(place: Project, tmp_path: Path) -> None:
    flags = ["--params", "params.yaml", "--grid", "grid.yaml", "--jobs", "2", "--out", str(tmp_path / "kfp")]
    said = place.run("maskcast", "pipeline", "run-local", "--pipeline", "video", *flags)
    assert said.count(" ... done after ") == 6
    (run,) = (tmp_path / "kfp").glob("maskcast-video-grid-*")
    pages = {page.name for page in (run / "pages").iterdir()}
    assert pages == {"evaluate_many.html", "index.html", "seed_train_masker.html", "wide_train_masker.html"}
    by_kfp = rows(run / "evaluate-many/report")
    assert list(by_kfp) == ["wide", "seed"] and float(by_kfp["seed"]["jaccard"]) >= 0
    assert by_kfp == rows(place.folder / "results/grid")
    for number, name in ((0, "wide"), (2, "seed")):
        (ref,) = place.run("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/grid-{name}-*").split()
        copied = tmp_path / name
        place.dvc(
            "get", str(place.folder.parents[1]), "recipes/video/models/masker", "--rev", ref, "-o", str(copied)
        )
        (masker,) = run.glob(f"for-loop-1-iteration-{number}/*/masker")
        assert (copied / "model.safetensors").read_bytes() == (masker / "model.safetensors").read_bytes()


def test_what_is_done_is_not_run_again_and_others_are_left_alone(
    place: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    queue = Queue(place.folder)
    (ref,) = place.run("git", "for-each-ref", "--format=%(refname:lstrip=4)", f"refs/exps/*/*/{SHARED}*").split()
    assert queue.run([Experiment(ref, {}, [])], 1) == {}
    assert f"done before: {ref}" in capsys.readouterr().err
    place.dvc("exp", "run", "--queue", "--name", "somebody", "prepare_clips")
    with pytest.raises(MaskcastError, match=r"DVC's queue is in use: somebody; wait for them"):
        queue.run([Experiment("another", {}, ["prepare_clips"])], 1)
    assert "another" not in place.dvc("queue", "status")


def test_a_place_without_a_clean_repository_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    project = Project(tmp_path)
    grid = {"stage": "train_masker", "variants": {"a": {"train_masker.training.seed": 1}}}
    Path("grid.yaml").write_text(yaml.safe_dump(grid))

    def said(*flags: str) -> str:
        assert main(["grid", "grid.yaml", *flags]) == 2
        return capsys.readouterr().err

    assert "error: dvc.yaml: no such pipeline of DVC; run this in the folder of a dvc.yaml" in said()
    Path("dvc.yaml").write_text("stages:\n  a:\n    cmd: echo 1\n")
    assert "dvc.yaml: runs no stage of maskcast" in said()
    command = "maskcast train_masker --params params.yaml --clips clips --masker models/masker --metrics m.json"
    prepare = "maskcast prepare_clips --params params.yaml --raw raw --clips clips"
    stages = {"train_masker": {"cmd": command}, "prepare_clips": {"cmd": prepare}}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    length = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 0.01}
    params = {"train_masker": {"model": {"arch": "unet"}, "training": length}, "prepare_clips": {}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert f"{tmp_path}: is in no Git repository with a commit" in said()
    project.run("git", "init", "--quiet")
    project.commit("all")
    assert f"{tmp_path}: is in no DVC repository; `dvc init` makes it one" in said()
    project.dvc("init", "--quiet")
    project.commit("DVC")
    Path("params.yaml").write_text(yaml.safe_dump(params | {"other": {}}))
    assert "params.yaml: differs from the last commit, where experiments of DVC start; commit it" in said()
    assert "--jobs 0: give 1 or more" in said("--jobs", "0")
    Path("models").mkdir()
    assert "models: already there (--out)" in said("--out", "models")
