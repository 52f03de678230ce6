"""Two processes (gloo, on the CPU) against one with the same global batch, and what happens when one dies."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from safetensors.torch import load_file
from tests.conftest import ROOT, write_detection_set, write_store
from tests.integration import two_processes
from tests.integration.test_stopping import without_progress
from tests.known import know_squares

from maskcast.errors import MaskcastError
from maskcast.labels import single_map
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.runner import launch
from maskcast.runner.run import run_stage

TRAINING = {
    "epochs": 2,
    "steps_per_epoch": 6,
    "batch_size": 4,
    "learning_rate": 3e-4,  # low: Adam makes whole steps of gradients that are rounding alone
    "warmup_steps": 12,
    "checkpoint_every": 3,
    "precision": "fp32",
}
MODELS = {
    "pretrain_encoder": {"arch": "unet", "width": 4},
    "train_masker": {"arch": "unet", "width": 4},
    "pretrain_forecaster": {"arch": "convlstm", "hidden": 8, "loss_clips": 3},
}
METHOD = {"name": "densecl", "queue": 16, "hidden": 8, "dim": 4, "sub_batches": 2}
DENSE = {"method": {"name": "masked"}, "network": MODELS["pretrain_encoder"]}
FLOW = {"model": {"arch": "flow"}}
WAIT_S = 800
OUTPUT = {"pretrain_encoder": "encoder", "train_masker": "masker", "pretrain_forecaster": "pretrained"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, a masker that sees the objects, and its masks."""
    folder = tmp_path_factory.mktemp("inputs")
    write_store(folder / "clips", train=3, val=3, unlabeled=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = UNetConfig(width=4)
        masker = know_squares(config.build(single_map(["background", "red", "blue"])))
        save_masker(folder / "masker", masker, config, {"height": 32, "width": 48})
        run_stage("generate_masks", {}, clips="clips", masker="masker", masks="masks", metrics="b.json")
    return folder


@pytest.fixture(autouse=True)
def databases(tmp_path: Path, empty_database: Path) -> None:
    """MLflow's database in every folder that a test runs in."""
    for name in ("1", "2", "run"):
        (tmp_path / name).mkdir()
        shutil.copy(empty_database, tmp_path / name / "mlflow.db")


@pytest.fixture(scope="module")
def forked() -> Iterator[None]:
    """Processes of a stage that this one starts are forked from one that has imported what takes seconds."""
    made = launch._config
    forkserver.set_forkserver_preload(
        ["mlflow.store.tracking.sqlalchemy_store", "maskcast.training.finish", launch.__name__]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "_config", lambda *words: replace(made(*words), start_method="forkserver"))
        yield
    forkserver._forkserver._stop()


def ports(name: str, inputs: Path) -> dict[str, str]:
    taken = ["clips"] if name == "train_masker" else ["clips", "masks", "masker"]
    given = {port: str(inputs / port) for port in taken}
    if name == "pretrain_encoder":
        given = {"unlabeled": str(inputs / "clips")}
    return given | {OUTPUT[name]: OUTPUT[name], "metrics": "metrics.json", "page": "page.html"}


def params(name: str, **training: Any) -> dict[str, Any]:
    own = {"method": METHOD, "views": {"size": [16, 16]}} if name == "pretrain_encoder" else {}
    return {"model": MODELS[name], "training": TRAINING | training} | own


def curve(folder: Path) -> list[float]:
    """Returns the loss of every step, as it was tracked."""
    with sqlite3.connect(folder / "mlflow.db") as database:
        rows = database.execute("select value from metrics where key = 'train/loss' order by step").fetchall()
    database.close()
    return [value for (value,) in rows]


def start(
    folder: Path, inputs: Path, values: dict[str, Any], launcher: tuple[str, ...] = ()
) -> subprocess.Popen[bytes]:
    """Starts train_masker by the command line, in a folder of its own; its output goes to `log`."""
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_masker": values}))
    command = [sys.executable, *launcher, "-m", "maskcast", "train_masker", "--params", "params.yaml"]
    for port, path in ports("train_masker", inputs).items():
        command += [f"--{port}", path]
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}
        )


def workers(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Returns the two processes that a stage has started, in order."""
    found = psutil.Process(process.pid).children()
    found = sorted((each for each in found if "spawn_main" in " ".join(each.cmdline())), key=lambda each: each.pid)
    assert len(found) == 2
    return found


def wait_for(what: Path | str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Waits for a file, or for words in the log."""
    while not (what.exists() if isinstance(what, Path) else what in log.read_text()):
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(("mlflow", "mlartifacts"))}


@pytest.mark.parametrize(
    ("name", "own"),
    [*((name, {}) for name in OUTPUT), ("pretrain_encoder", DENSE), ("pretrain_forecaster", FLOW)],
    ids=[*OUTPUT, "dense", "flow"],
)
@pytest.mark.usefixtures("forked")
def test_the_curve_of_two_processes_is_that_of_one(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, own: dict[str, Any]
) -> None:
    found = {}
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        monkeypatch.chdir(folder)
        found[processes] = run_stage(name, params(name, processes=processes) | own, **ports(name, inputs))
        assert left_in(folder) == {OUTPUT[name], "metrics.json", "page.html", "index.html"}
        assert json.loads((folder / "metrics.json").read_text()) == found[processes]
    assert curve(tmp_path / "2") == pytest.approx(curve(tmp_path / "1"), rel=1e-5)
    for score, value in found[1].items():
        if "jaccard" in score:
            assert found[2][score] == pytest.approx(value, abs=2e-3), score
    for file in sorted((tmp_path / "1" / OUTPUT[name]).glob("*.safetensors")):
        one, two = load_file(file), load_file(tmp_path / "2" / OUTPUT[name] / file.name)
        assert one.keys() == two.keys()
        for key, weights in one.items():
            assert (two[key] - weights).float().abs().mean() < 2e-4, key


@pytest.mark.usefixtures("forked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_two_processes_score_a_detector_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each draws proposals of its own, so losses differ; what both find in their halves of val is put together."""
    monkeypatch.chdir(tmp_path)
    dataset = write_detection_set(tmp_path / "dataset", train=4, val=6)
    sizes = {"min_size": 48, "max_size": 80, "anchor_sizes": [8, 16, 24, 32, 48], "proposals": 40, "rois": 32}
    training = {"phases": [{"learning_rate": 0.02, "epochs": 1}], "steps_per_epoch": 4, "batch_size": 4}
    values = {
        "model": {"version": 2, "encoder": "tu-test_resnet", "width": 16} | sizes,
        "training": training | {"processes": 2, "precision": "fp32"},
        "ema": 0.5,
        "val_batch_size": 2,
    }
    scores = run_stage("train_detector", values, dataset=dataset, detector="detector", metrics="a.json")
    alone = {"batch_size": 2, "precision": "fp32", "pictures": 0}
    found = run_stage(
        "evaluate_detector", alone, dataset=dataset, detector="detector", metrics="b.json", report="report"
    )
    assert found["AP50"] > 0
    assert scores["val_AP"] == pytest.approx(found["AP"], rel=1e-6)
    assert scores["val_AP50"] == pytest.approx(found["AP50"], rel=1e-6)


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    """The losses of each task in float64, of two processes."""
    file = tmp_path_factory.mktemp("exact") / "two.json"
    subprocess.run([sys.executable, "-m", two_processes.__name__, str(file)], cwd=ROOT, check=True, timeout=600)
    return json.loads(file.read_text())


@pytest.mark.parametrize("task", two_processes.TASKS)
def test_losses_and_batch_norms_are_exact(exact: dict[str, list[float]], task: str) -> None:
    """In float64 nothing is left of the difference, so that in float32 it is rounding alone."""
    one = two_processes.fitted(task)
    assert len(one) == 12
    assert exact[task] == pytest.approx(one, rel=1e-12)


@pytest.mark.parametrize("task", two_processes.DRAWING)
def test_each_process_draws_its_own_dropout_and_the_first_draws_as_a_single_one(
    exact: dict[str, Any], task: str
) -> None:
    first, second = exact[task]
    assert first == two_processes.drawn(task)
    assert not set(first) & set(second)


def test_a_network_that_skips_weights_in_some_steps_is_told_so(exact: dict[str, Any]) -> None:
    assert re.match(r"step [12]: the network uses other weights than in the first step", exact["skipping"])


def test_torchrun_may_start_the_stage_itself(inputs: Path, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(tmp_path / "run", inputs, params("train_masker"), torchrun)
    log = tmp_path / "run/log"
    assert process.wait(WAIT_S) == 0, log.read_text()
    assert log.read_text().count("epoch 1/2") == 1
    assert (tmp_path / "run/masker/model.safetensors").exists()
    assert len(curve(tmp_path / "run")) == 12


def test_whatever_is_killed_the_next_run_resumes(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, log, scratch = tmp_path / "run", tmp_path / "run/log", tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    process = start(folder, inputs, params("train_masker", epochs=500, processes=2))
    wait_for(folder / "masker.resume/checkpoint.pt", process, log)
    workers(process)[1].kill()
    assert process.wait(WAIT_S) == 2, log.read_text()
    (error,) = (line for line in log.read_text().splitlines() if line.startswith("error: "))
    assert "train_masker: process 1 of 2 was killed by SIGKILL" in error
    assert not list(scratch.glob("*errorfile*"))
    assert left_in(folder) == {"log", "params.yaml", "masker.resume"}

    log.write_text("")
    process = start(folder, inputs, params("train_masker", epochs=500, processes=2))
    wait_for("resuming at step", process, log)
    started = workers(process)
    process.terminate()
    assert process.wait(WAIT_S) == 75
    assert not psutil.wait_procs(started, timeout=WAIT_S)[1]
    assert left_in(folder) == {"log", "params.yaml", "masker.resume"}

    log.write_text("")
    process = start(folder, inputs, params("train_masker", epochs=500))
    wait_for("resuming at step", process, log)
    process.kill()
    process.wait()


def test_processes_go_with_the_one_that_started_them(inputs: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "run/log"
    process = start(folder, inputs, params("train_masker", epochs=500, processes=2))
    wait_for(folder / "masker.resume/checkpoint.pt", process, log)
    started = workers(process)
    process.kill()
    process.wait()
    assert not psutil.wait_procs(started, timeout=WAIT_S)[1]
    assert not (folder / "masker").exists()


def test_a_process_that_meets_a_mistake_says_it_in_one_line(inputs: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "clips", val=1)
    process = start(tmp_path / "run", tmp_path, params("train_masker", processes=2))
    assert process.wait(WAIT_S) == 2
    (line,) = without_progress((tmp_path / "run/log").read_text())
    assert line.startswith(f"error: {tmp_path}/clips: holds no labelled clips in split 'train'")


def test_a_batch_that_cannot_be_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    values = params("train_masker", batch_size=5, processes=2)
    with pytest.raises(MaskcastError, match=r"batch_size 5 cannot be divided among nodes x processes = 1 x 2"):
        run_stage("train_masker", values, clips="clips", masker="masker", metrics="metrics")
