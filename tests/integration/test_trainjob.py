"""A stage on several nodes: the pod's side for real, a small Trainer that runs the nodes' commands for real."""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.conftest import write_store
from tests.integration.trainer import JOBS, Trainer, trainer

from maskcast.errors import MaskcastError
from maskcast.runner import kube
from maskcast.runner.run import run_stage

TRAINING = {
    "epochs": 2,
    "steps_per_epoch": 6,
    "batch_size": 4,
    "learning_rate": 3e-4,
    "warmup_steps": 12,
    "checkpoint_every": 3,
    "precision": "fp32",
    "nodes": 2,
}


def params(**training: Any) -> dict[str, Any]:
    return {"model": {"arch": "unet", "width": 4}, "training": TRAINING | training}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Iterator[Trainer]:
    """This process as a pod named `launcher`, whose workspace is a folder."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    variables = {"KFP_RUN_ID": "run-1", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    container = {
        "name": "main",
        "image": "maskcast",
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "volumeMounts": [{"name": "workspace", "mountPath": str(workspace)}],
    }
    volume = {"name": "workspace", "persistentVolumeClaim": {"claimName": "maskcast-workspace"}}
    pod = {
        "metadata": {"name": "launcher", "namespace": "team", "uid": "1-2-3"},
        "spec": {"containers": [container], "volumes": [volume]},
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("KFP_POD_NAME", "launcher")
    monkeypatch.setenv("MASKCAST_RESUME_DIR", f"{workspace}/resume")
    monkeypatch.setattr(kube, "ACCOUNT", tmp_path / "account")
    monkeypatch.setattr(kube, "POLL_S", 0.1)
    monkeypatch.chdir(tmp_path)
    with trainer(tmp_path / "account", pod) as state:
        yield state


def train(folder: Path, name: str = "out", **training: Any) -> dict[str, float]:
    out = folder / name
    return run_stage(
        "train_masker", params(**training), clips=folder / "clips", masker=out / "masker", metrics=out / "metrics"
    )


@contextmanager
def meanwhile(act: Callable[[], None], ready: Callable[[], bool]) -> Iterator[None]:
    """Does something in another thread as soon as the time has come, unless the block is over by then."""
    over = threading.Event()

    def wait() -> None:
        while not over.wait(0.02):
            if ready():
                act()
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_two_nodes_learn_what_one_process_does(
    cluster: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "clips")
    cluster.refused = {f"GET {JOBS}": [503], "GET /api/v1/namespaces/team/pods": [500]}
    found = train(tmp_path)
    shown = capsys.readouterr().err
    assert "2 nodes x 1 process\n" in shown
    for line in ("epoch 1/2", "epoch 2/2", "masker: validation Jaccard"):
        assert shown.count(line) == 1, shown
    expected = train(tmp_path, "alone", nodes=1)
    assert found["val_jaccard"] == pytest.approx(expected["val_jaccard"], abs=1e-3)
    ours, theirs = (load_file(tmp_path / name / "masker/model.safetensors") for name in ("out", "alone"))
    for name, weights in theirs.items():
        assert (ours[name] - weights).float().abs().mean() < 2e-4, name
    assert cluster.name is None
    assert not list((tmp_path / "workspace/resume").rglob("*masker*"))
    command = cluster.jobs[0]["spec"]["trainer"]["command"]
    assert command[1:6] == ["-m", "torch.distributed.run", "-m", "maskcast", "train_masker"]


def test_the_line_of_a_node_that_failed_is_the_error(cluster: Trainer, tmp_path: Path) -> None:
    write_store(tmp_path / "clips", val=1)
    with pytest.raises(MaskcastError, match=r"holds no labelled clips in split 'train'.*\(node [01]\)$"):
        train(tmp_path)
    assert cluster.name is None
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "workspace").rglob("inputs-*"))


def test_a_job_that_was_left_behind_makes_way(
    cluster: Trainer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_store(tmp_path / "clips")
    cluster.refused = {f"DELETE {JOBS}": [404, 403], f"GET {JOBS}": [403]}
    with pytest.raises(MaskcastError, match="read a TrainJob"):
        train(tmp_path)
    assert "cannot be deleted now" in capsys.readouterr().err
    assert cluster.name is not None
    cluster.refused = {f"POST {JOBS}": [403]}
    with pytest.raises(MaskcastError, match="create a TrainJob"):
        train(tmp_path)
    assert cluster.name is None


@pytest.mark.filterwarnings(  # SIGTERM may come within a TLS handshake: Python does not close that socket
    "ignore:Exception ignored .*socket:pytest.PytestUnraisableExceptionWarning"
)
def test_a_killed_node_ends_the_job_and_the_next_try_resumes(cluster: Trainer, tmp_path: Path) -> None:
    write_store(tmp_path / "clips")
    checkpoint = tmp_path / "workspace/resume/run-1/masker.resume/outputs/masker.resume/checkpoint.pt"
    killed = meanwhile(lambda: cluster.nodes[1].kill(), checkpoint.exists)
    with (
        pytest.raises(
            MaskcastError, match=r"TrainJob maskcast-train-masker-\w{8} failed: .*run the same command again"
        ),
        killed,
    ):
        train(tmp_path, epochs=10_000)
    assert not (tmp_path / "out").exists()
    assert checkpoint.exists()
    stopped = meanwhile(lambda: os.kill(os.getpid(), signal.SIGTERM), lambda: resumed(cluster))
    with pytest.raises(SystemExit), stopped:
        train(tmp_path, epochs=10_000)
    assert cluster.name is None, "SIGTERM must take the job along"
    assert len(cluster.jobs) == 2


@pytest.mark.filterwarnings(  # as above
    "ignore:Exception ignored .*socket:pytest.PytestUnraisableExceptionWarning"
)
def test_a_stop_while_the_job_is_created_takes_it_along(
    cluster: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started_and_stopped(state: Trainer, job: dict[str, Any]) -> None:
        start(state, job)
        os.kill(os.getpid(), signal.SIGTERM)

    start = Trainer.start
    write_store(tmp_path / "clips")
    monkeypatch.setattr(Trainer, "start", started_and_stopped)
    with pytest.raises(SystemExit):
        train(tmp_path)
    assert (len(cluster.jobs), cluster.name) == (1, None)


def resumed(cluster: Trainer) -> bool:
    return any("resuming at step" in line for node in list(cluster.nodes) for line in node.lines)


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({f"POST {JOBS}": [404]}, r"create a TrainJob \(404: .*\); install Kubeflow Trainer 2.2 or later"),
        ({f"POST {JOBS}": [403]}, r"create a TrainJob \(403: .* is refused\); apply the role that `maskcast"),
        ({f"POST {JOBS}": [422]}, r"create a TrainJob \(422: .*\); fix the cause"),
        ({"GET /api/v1/namespaces/team/pods/launcher": [403]}, r"read this pod \(403: .*pipeline setup"),
    ],
)
def test_what_the_cluster_refuses(
    cluster: Trainer, tmp_path: Path, refused: dict[str, list[int]], said: str
) -> None:
    write_store(tmp_path / "clips", train=1, val=1)
    cluster.refused = refused
    with pytest.raises(MaskcastError, match=said):
        train(tmp_path)
    assert not cluster.jobs
    assert not (tmp_path / "out").exists()


def test_without_a_volume_that_nodes_share(
    cluster: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "clips", train=1, val=1)
    monkeypatch.delenv("MASKCAST_RESUME_DIR")
    with pytest.raises(
        MaskcastError, match=r"training.nodes 2: .* is not on a volume that the nodes share; set `workspace`"
    ):
        train(tmp_path)


def test_outside_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "clips", train=1, val=1)
    monkeypatch.setattr(kube, "ACCOUNT", tmp_path / "absent")
    with pytest.raises(MaskcastError, match=r"training.nodes: a value above 1 creates a TrainJob, .* set it to 1"):
        train(tmp_path)
