"""SIGKILL in the middle of a training stage, then the same once more: the weights of an unbroken run."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import mlflow
import pytest
import yaml
from tests.conftest import ROOT, write_store

from maskcast.runner.mlflow_run import KEY
from maskcast.runner.run import run_stage
from maskcast.runner.stage import get_stage

TRAINING = {
    "epochs": 2,
    "steps_per_epoch": 20,
    "batch_size": 2,
    "learning_rate": 0.01,
    "checkpoint_every": 7,
    "precision": "bf16",
}
PARAMS = {
    "pretrain_encoder": {
        "model": {"arch": "unet", "width": 4},
        "method": {"name": "densecl", "queue": 16, "hidden": 8, "dim": 4},
        "views": {"size": [16, 16]},
        "training": TRAINING | {"batch_size": 8},
    },
    "train_masker": {"model": {"arch": "unet", "width": 4}, "training": TRAINING},
    "generate_masks": {},
    "pretrain_forecaster": {"model": {"arch": "convlstm", "hidden": 8}, "training": TRAINING},
    "finetune_forecaster": {"training": TRAINING},
}
TRAINED = {
    "pretrain_encoder": "encoder",
    "train_masker": "masker",
    "pretrain_forecaster": "pretrained",
    "finetune_forecaster": "forecaster",
}
KILLED = """
import os, signal, sys
from maskcast.__main__ import main

def kill(event, arguments):
    if event == "os.rename":
        place = str(arguments[1])
        if place.endswith("checkpoint.pt") and os.path.exists(place) or place.endswith("0000002.clip"):
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(kill)
main(sys.argv[1:])
"""
"""Kills itself when the second checkpoint, or the third finished clip, is written and not yet in its place."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """What unbroken runs of the stages leave, which is also what each of them reads."""
    folder = tmp_path_factory.mktemp("kill")
    shutil.copy(empty_database, folder / "mlflow.db")
    write_store(folder / "clips")
    (folder / "unlabeled").symlink_to(folder / "clips")
    (folder / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in PARAMS:
            run_stage(name, PARAMS[name], **ports(folder, name, folder))
    return folder


def ports(folder: Path, name: str, results: Path) -> dict[str, Path]:
    """Returns a path per port: inputs from ``folder``, outputs in ``results``."""
    return {
        port.name: (folder if port.direction == "in" else results)
        / {"metrics": f"{name}.json", "page": f"{name}.html"}.get(port.name, port.name)
        for port in get_stage(name).ports
        if not port.optional or port.name == "page"
    }


def curves(page: str) -> list[str]:
    """Returns the charts of a page, with the tables of their numbers."""
    return re.findall('<figure class="chart">.*?</figure>', page, re.DOTALL)


def run_until_killed(programs: Path, folder: Path, name: str, results: Path, source: Path | None = None) -> None:
    """Runs a stage until it is killed.

    Args:
        programs: commands that start at once.
        folder: has the inputs and the database.
        name: the stage.
        results: folder for the outputs.
        source: folder with the package to run; None runs the one under test.
    """
    command = [str(programs / "python3"), "-c", KILLED, name, "--params", str(folder / "params.yaml")]
    for port, path in ports(folder, name, results).items():
        command += [f"--{port}", str(path)]
    # the database of the fixture's runs: to make one takes as long as to train here
    own = {"OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    if source is not None:
        own["PYTHONPATH"] = str(source)
    with (results / "log").open("wb") as log:
        done = subprocess.run(
            command, cwd=results, stdout=log, stderr=log, env=os.environ | own, timeout=800, check=False
        )
    assert done.returncode == 128 + signal.SIGKILL, (results / "log").read_text()


@pytest.mark.parametrize("name", TRAINED)
def test_killed_and_started_again(
    folder: Path,
    tmp_path: Path,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    model = TRAINED[name]
    run_until_killed(programs, folder, name, tmp_path)
    assert not (tmp_path / model).exists()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    run_stage(name, PARAMS[name], **ports(folder, name, tmp_path))  # here, where torch is imported
    assert "resuming at step 7 of 40" in capsys.readouterr().err
    unbroken, resumed = ((run / model / "model.safetensors").read_bytes() for run in (folder, tmp_path))
    assert resumed == unbroken
    of_unbroken, of_resumed = (curves((run / f"{name}.html").read_text()) for run in (folder, tmp_path))
    assert of_resumed == of_unbroken and "train/loss" in "".join(of_resumed)
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("mlflow")}
    assert left - {"mlartifacts"} == {"log", model, f"{name}.json", f"{name}.html", "index.html"}


@pytest.mark.parametrize("name", ["train_masker", "generate_masks"])
def test_what_other_code_began_is_not_continued(
    folder: Path,
    tmp_path: Path,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    """As after `git pull`: the outputs are those of one commit, and so is the run in MLflow."""
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src/maskcast", source / "maskcast", ignore=shutil.ignore_patterns("__pycache__"))
    finished = source / "maskcast/data/clip_store/finished.py"
    finished.write_text(
        finished.read_text().replace('"meta": clip.meta}', '"meta": clip.meta | {"mean_confidence": 0}}')
    )
    with (source / "maskcast/training/loop.py").open("a") as loop:
        loop.write("# as it was before\n")
    run_until_killed(programs, folder, name, tmp_path, source)
    output = TRAINED.get(name, "masks")
    key = (tmp_path / f"{output}.resume/mlflow_run_id").read_text()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    run_stage(name, PARAMS[name], **ports(folder, name, tmp_path))
    if name in TRAINED:
        assert "other params, data or code; starting from scratch" in capsys.readouterr().err
    result = "model.safetensors" if name in TRAINED else "index.json"
    assert (tmp_path / output / result).read_bytes() == (folder / output / result).read_bytes()
    client = mlflow.MlflowClient()
    (begun,) = client.search_runs(
        [client.get_experiment_by_name("maskcast").experiment_id], f"tags.`{KEY}` = '{key}'"
    )
    assert begun.info.status == "KILLED"
