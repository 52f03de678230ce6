"""`maskcast grid` in places where it cannot work."""

from pathlib import Path

import pytest
import yaml
from tests.integration.project import Project

from maskcast.__main__ import main


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

    assert "error: dvc.yaml: not found; run this command in a folder with a dvc.yaml" in said()
    Path("dvc.yaml").write_text("stages:\n  a:\n    cmd: echo 1\n")
    assert "dvc.yaml: no entry runs a stage of maskcast" in said()
    command = "maskcast train_masker --params params.yaml --clips clips --masker models/masker --metrics m.json"
    prepare = "maskcast prepare_clips --params params.yaml --raw raw --clips clips"
    stages = {"train_masker": {"cmd": command}, "prepare_clips": {"cmd": prepare}}
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    length = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 0.01}
    params = {"train_masker": {"model": {"arch": "unet"}, "training": length}, "prepare_clips": {}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert f"{tmp_path}: not a Git repository with a commit" in said()
    project.run("git", "init", "--quiet")
    project.commit("all")
    assert f"{tmp_path}: not a DVC repository; run `dvc init`" in said()
    project.dvc("init", "--quiet")
    project.commit("DVC")
    Path("params.yaml").write_text(yaml.safe_dump(params | {"other": {}}))
    assert "params.yaml: uncommitted changes, but DVC experiments start from the last commit; commit or" in said()
    assert "--jobs: got 0; give 1 or more" in said("--jobs", "0")
    Path("models").mkdir()
    assert "models: already exists (--out)" in said("--out", "models")
