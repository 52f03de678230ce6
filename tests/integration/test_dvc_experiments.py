"""DVC's experiments in temporary folders, which it removes: runs and models are kept where they were started."""

import shutil
import sys
import time
from pathlib import Path

import mlflow
import pytest
import yaml
from tests.conftest import ROOT, write_store
from tests.integration.project import Project

PARAMS = {
    "train_masker": {
        "model": {"arch": "unet", "width": 4},
        "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 0.01},
    }
}
TRAIN = "train_masker --params params.yaml --clips clips --masker masker --metrics metrics.json --page page.html"
REGISTER = """
import json
from maskcast.registry.store import Registry
number = Registry("kept", creates=True).create("file:///nowhere", None, {"maskcast.verdict": "passed"})
open("version.json", "w").write(json.dumps(number))
"""
WAIT_S = 300


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, empty_database: Path, programs: Path) -> Project:
    """A Git and DVC repository with a pipeline of two stages: one trains, one registers."""
    folder = tmp_path_factory.mktemp("project")
    project = Project(folder, ROOT)
    write_store(folder / "clips")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    (folder / "register.py").write_text(REGISTER)
    train = {"cmd": f"{programs}/maskcast {TRAIN}", "deps": ["clips"], "params": ["train_masker"]}
    train["outs"] = ["masker", "metrics.json", "page.html"]
    register = {"cmd": f"{sys.executable} register.py", "deps": ["masker"], "outs": ["version.json"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": train, "register": register}}))
    (folder / ".gitignore").write_text("mlflow.db\nmlartifacts\n")
    project.run("git", "init", "--quiet")
    project.dvc("init", "--quiet")
    project.commit("a pipeline")
    shutil.copy(empty_database, folder / "mlflow.db")
    return project


@pytest.mark.parametrize("number", [1, 2], ids=["--temp", "--queue"])
def test_runs_and_models_are_kept_in_the_workspace(project: Project, programs: Path, number: int) -> None:
    name, change = f"number-{number}", f"train_masker.training.steps_per_epoch={number + 1}"
    asking = Project(project.folder, ROOT)
    asking.add_programs(programs)
    client = mlflow.MlflowClient(f"sqlite:///{project.folder / 'mlflow.db'}")
    before = len(client.search_model_versions("name = 'kept'"))
    asking.dvc("exp", "run", "--temp" if number == 1 else "--queue", "--name", name, "-S", change)
    if number == 2:
        project.dvc("queue", "start")
        deadline = time.monotonic() + WAIT_S
        while "Success" not in (said := asking.dvc("queue", "status")):
            assert "Failed" not in said and time.monotonic() < deadline, said
            time.sleep(1)
    experiment = client.get_experiment_by_name("maskcast")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.`maskcast.group` = '{name}'")
    assert (run.info.status, run.data.params["training.steps_per_epoch"]) == ("FINISHED", str(number + 1))
    assert Path(client.download_artifacts(run.info.run_id, "train_masker.html")).is_file()
    assert (project.folder / "mlartifacts").is_dir()
    assert len(client.search_model_versions("name = 'kept'")) == before + 1
    assert not [*(project.folder / ".dvc/tmp/exps").rglob("mlflow.db")]
