"""Tracking against real MLflow back ends: the embedded SQLite default, and a server that goes and comes back."""

import re
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from http.client import RemoteDisconnected
from pathlib import Path

import mlflow
import pytest
import requests
from tests.integration.faults import Fault, faulty_proxy
from tests.integration.mlflow_server import mlflow_server
from tests.servers import free_ports
from urllib3.exceptions import ProtocolError

from maskcast.__main__ import main
from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError, one_line
from maskcast.params import Params
from maskcast.progress import listening, report, report_file
from maskcast.runner import tracking
from maskcast.runner.provenance import Origin
from maskcast.runner.tracking import TrackedRun, tracked_run

WAIT_S = 600
OPEN = "from maskcast.runner.mlflow_client import new_client; new_client()"
KILLED_OVER_IT = f"""
import os, signal
from sqlalchemy import Engine, event

@event.listens_for(Engine, "after_cursor_execute")
def kill(connection, cursor, statement, *_):
    if statement.startswith("ALTER TABLE experiments ADD COLUMN"):
        os.kill(os.getpid(), signal.SIGKILL)

{OPEN}
"""


class LossParams(Params):
    dice: float = 0.4


class ExampleParams(Params):
    epochs: int = 3
    loss: LossParams = LossParams()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    """A working directory with an input, and an environment that names no server and no run."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", "KFP_RUN_ID", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    (tmp_path / "clips").write_text("data")
    return tmp_path


def tracked(stage: str, inputs: Mapping[str, Path], key_file: Path) -> AbstractContextManager[TrackedRun]:
    return tracked_run(Origin.of(stage, ExampleParams(), inputs), key_file)


def track_something(folder: Path, last: int = 2500, wait: Callable[[TrackedRun], None] = lambda run: None) -> None:
    picture = folder / "strip.png"
    picture.write_bytes(b"png")
    with tracked("train_masker", {"clips": folder / "clips"}, folder / "r/run_id") as run, listening(run):
        for step in range(1, last + 1):
            report({"train/loss": 1 / step}, step=step)
        report({"jaccard": 0.5})
        report_file(picture, "pictures")
        picture.unlink()  # a stage may remove what it reported
        wait(run)


def only_run(client: mlflow.MlflowClient) -> mlflow.entities.Run:
    experiment = client.get_experiment_by_name("maskcast")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def test_the_embedded_default_holds_everything(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "brave-mole")
    monkeypatch.setenv("MASKCAST_IMAGE", "maskcast@sha256:0123")
    track_something(folder)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    run = only_run(client)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"epochs": "3", "loss.dice": "0.4"}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value) for m in history] == [(s, 1 / s) for s in range(1, 2501)]
    assert run.data.metrics["jaccard"] == 0.5
    assert "system/cpu_utilization_percentage" in run.data.metrics
    assert [f.path for f in client.list_artifacts(run.info.run_id, "pictures")] == ["pictures/strip.png"]
    tags = run.data.tags
    assert tags["maskcast.group"] == "brave-mole"
    assert (tags["maskcast.stage"], tags["maskcast.image"]) == ("train_masker", "maskcast@sha256:0123")
    (lineage,) = run.inputs.dataset_inputs
    assert (lineage.dataset.name, lineage.dataset.digest) == ("clips", digest_tree(folder / "clips"))


def test_a_kill_while_the_first_run_makes_the_database_harms_no_later_run(folder: Path, programs: Path) -> None:
    (folder / "mlflow.db").unlink()
    killed = subprocess.run([programs / "python3", "-c", KILLED_OVER_IT], check=False)
    assert killed.returncode == 128 + signal.SIGKILL
    at_once = [subprocess.Popen([programs / "python3", "-c", OPEN]) for _ in range(2)]
    assert [process.wait(WAIT_S) for process in at_once] == [0, 0]
    assert sorted(path.name for path in folder.iterdir()) == ["clips", "mlflow.db"]


def test_no_name_of_a_metric_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tracked("evaluate", {}, folder / "r/run_id") as run, listening(run):
        report({"suggestion/weight_decay 0.1, batch_size 4": 0.5, "Straße (nass)": 0.25, "jaccard": 1.0})
    expected = {"suggestion/weight_decay 0.1 batch_size 4": 0.5, "Straße nass": 0.25, "jaccard": 1.0}
    found = only_run(mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")).data.metrics
    assert {name: value for name, value in found.items() if not name.startswith("system/")} == expected
    assert "tracking" not in capsys.readouterr().err


def test_a_failed_stage_is_a_failed_run(folder: Path) -> None:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    for error, tag in (
        (KeyError("loss"), "KeyError: 'loss'"),
        (MaskcastError("clips: no such\nfolder http://me:secret@host"), "clips: no such folder http://***@host"),
    ):
        with pytest.raises(type(error)), tracked("evaluate", {}, folder / "run_id"):
            raise error
        run = only_run(client)  # it goes on with the run
        assert (run.info.status, run.data.tags["maskcast.error"]) == ("FAILED", tag)
    with tracked("evaluate", {}, folder / "run_id"):
        pass
    run = only_run(client)
    assert (run.info.status, "maskcast.error" in run.data.tags) == ("FINISHED", False)


def test_a_killed_stage_goes_on_with_its_run(folder: Path) -> None:
    for start in (1, 11):
        with tracked("train_masker", {}, folder / "r/run_id") as run:
            for step in range(start, start + 10):
                run.metrics({"loss": float(step)}, step)
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    history = client.get_metric_history(only_run(client).info.run_id, "loss")
    assert [m.step for m in history] == list(range(1, 21))


def test_a_server_that_is_away_loses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(empty_database, folder / "server.db")
    (port,) = free_ports(1)
    monkeypatch.setattr(tracking, "SEND_EVERY_S", 0.1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with tracked("train_masker", {"clips": folder / "clips"}, folder / "run_id") as run:
        run.metrics({"loss": 1.0}, 1)  # the server is not there yet
        wait_for(lambda: "is unavailable" in capfd.readouterr().err)
        with mlflow_server(folder, port) as uri:
            client = mlflow.MlflowClient(uri)
            wait_for((folder / "run_id").exists)
            run.metrics({"loss": 2.0}, 2)
            wait_for(lambda: steps(client) == [1, 2])
        run.metrics({"loss": 3.0}, 3)  # it is away again
        wait_for(lambda: "is unavailable" in capfd.readouterr().err)
        with mlflow_server(folder, port):
            run.metrics({"loss": 4.0}, 4)
            run.close("FINISHED")
            found = only_run(client)
            history = client.get_metric_history(found.info.run_id, "loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert found.info.status == "FINISHED"


def steps(client: mlflow.MlflowClient) -> list[int]:
    """Returns the steps that the server has so far."""
    return [m.step for m in client.get_metric_history(only_run(client).info.run_id, "loss")]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def scratch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder for temporary files alone; ``folder`` gets a server's database.

    Stages wait a second for what does not answer, and long for what does.
    """
    scratch = tmp_path_factory.mktemp("tmp")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(tracking, "FLUSH_S", 1.0)
    monkeypatch.setattr(tracking, "STOPPED_FLUSH_S", float(WAIT_S))  # for a working server to end the run
    shutil.copy(empty_database, folder / "server.db")
    return scratch


def test_what_never_arrives_is_kept_and_later_stages_do_not_wait_long(
    folder: Path,
    scratch: Path,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    track_something(folder, last=10)
    said = capfd.readouterr().err
    assert "lost 11 metrics, 1 file of train_masker" in said and "; the metrics and files are in " in said
    monkeypatch.setattr(tracking, "FLUSH_S", float(WAIT_S))
    monkeypatch.setattr(tracking, "STOPPED_FLUSH_S", 1.0)
    begin = time.monotonic()
    with tracked("evaluate", {}, folder / "r/second") as second:
        second.metrics({"jaccard": 0.5}, None)
    assert time.monotonic() - begin < WAIT_S / 2
    assert "lost 1 metric, 0 files of evaluate" in capfd.readouterr().err
    create, send = re.findall("`(mlflow .*?)`", said)
    with mlflow_server(folder, port) as uri:
        subprocess.run([programs / "python3", "-m", *shlex.split(create)], check=True)
        client = mlflow.MlflowClient(uri)
        run_id = only_run(client).info.run_id
        subprocess.run([programs / "python3", "-m", *shlex.split(send.replace("RUN_ID", run_id))], check=True)
        found = client.download_artifacts(run_id, "lost_metrics.csv", str(scratch))
        assert [file.path for file in client.list_artifacts(run_id, "pictures")] == ["pictures/strip.png"]
    lines = Path(found).read_text().splitlines()
    assert lines[0] == "name,value,milliseconds,step"
    assert [line.split(",")[0::3] for line in lines[1:]] == [
        *(["train/loss", str(step)] for step in range(1, 11)),
        ["jaccard", "0"],
    ]


def test_a_broken_artifact_store_is_named_and_its_files_can_be_sent_later(
    folder: Path,
    scratch: Path,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (folder / "artifacts").write_text("a file where the store should be")
    told: list[str] = []

    def refuses_files_alone(run: TrackedRun) -> bool:
        told.append(capfd.readouterr().err)
        return not run._metrics and "is unavailable" in "".join(told)

    with mlflow_server(folder) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("://", "://ann:hunter22@"))
        track_something(folder, last=10, wait=lambda run: wait_for(lambda: refuses_files_alone(run)))
        said = "".join([*told, capfd.readouterr().err])
        shown = uri.replace("://", "://***@")
        assert f"tracking: the artifact store of MLflow ({shown}) is unavailable" in said
        assert f"lost 0 metrics, 1 file of train_masker: the artifact store of MLflow ({shown}) was" in said
        assert "hunter22" not in said and "('" not in said
        client = mlflow.MlflowClient(uri)
        run = only_run(client)
        assert (run.info.status, run.data.metrics["jaccard"]) == ("FINISHED", 0.5)
        monkeypatch.setattr(tracking, "FLUSH_S", float(WAIT_S))  # the next stage does not wait for it
        monkeypatch.setattr(tracking, "STOPPED_FLUSH_S", 1.0)
        begin = time.monotonic()
        with tracked("evaluate", {"clips": folder / "clips"}, folder / "r/second") as second:
            second.file(folder / "clips", "")
        assert time.monotonic() - begin < WAIT_S / 2
        assert "lost" in capfd.readouterr().err
        (folder / "artifacts").unlink()
        (command,) = re.findall("`(mlflow artifacts .*)`", said)
        subprocess.run([programs / "python3", "-m", *command.split()], check=True)
        assert [each.path for each in client.list_artifacts(run.info.run_id, "pictures")] == ["pictures/strip.png"]


def test_a_store_that_hangs_delays_one_stage_and_no_run_stays_open(
    folder: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with mlflow_server(folder) as uri, faulty_proxy(uri) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.endpoint)
        hanging = proxy.add(Fault("swallow", "PUT", "artifacts", times=99))
        for flush_s, stopped_s in ((1.0, float(WAIT_S)), (float(WAIT_S), 10.0)):  # later stages do not wait for it
            monkeypatch.setattr(tracking, "FLUSH_S", flush_s)
            monkeypatch.setattr(tracking, "STOPPED_FLUSH_S", stopped_s)
            begin = time.monotonic()
            with tracked("evaluate", {"clips": folder / "clips"}, folder / f"{flush_s}/id") as stage:
                stage.file(folder / "clips", "")
                assert hanging.reached.wait(WAIT_S)
                hanging.reached.clear()
                stage.metrics({"jaccard": 0.5}, 0)
            assert time.monotonic() - begin < WAIT_S / 2
            said = capfd.readouterr().err
            assert "lost 0 metrics, 1 file of evaluate: the artifact store of MLflow" in said
        client = mlflow.MlflowClient(uri)
        experiment = client.get_experiment_by_name("maskcast")
        assert experiment is not None
        found = client.search_runs([experiment.experiment_id])
        assert [(run.info.status, run.data.metrics["jaccard"]) for run in found] == [("FINISHED", 0.5)] * 2


@pytest.mark.parametrize("kept", [True, False], ids=["uploaded late", "no place"])
def test_files_that_cannot_be_sent_end_no_finished_stage(
    kept: bool,
    folder: Path,
    scratch: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (folder / "artifacts").write_text("a file where the store should be")
    copy = shutil.copy

    def copy_while_one_is_sent(path: Path, to: Path) -> Path:
        if to.name == "lost":
            run._files.popleft()
        return copy(path, to)

    with mlflow_server(folder) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with tracked("evaluate", {"clips": folder / "clips"}, folder / "run_id") as run:
            for _ in range(3):
                run.file(folder / "clips", "")
            if kept:
                monkeypatch.setattr(shutil, "copy", copy_while_one_is_sent)
            else:
                (spool,) = scratch.glob("maskcast-*/")
                (spool / "lost").write_text("a file where the folder should be")
    said = capfd.readouterr().err
    assert "3 files of evaluate" in said
    assert ("; the files could not be kept (" in said) != kept
    assert bool(list(scratch.glob("maskcast-*/"))) == kept


def test_a_lost_connection_is_said_in_words() -> None:
    lost = ProtocolError("Connection aborted.", RemoteDisconnected("Remote end closed connection"))
    assert one_line(requests.ConnectionError(lost)) == one_line(lost) == "Remote end closed connection"
    assert one_line(OSError(2, "No such file")) == "[Errno 2] No such file"
    assert one_line(ValueError("unlike", ValueError(""))) == "('unlike', ValueError(''))"


@pytest.mark.usefixtures("folder")
def test_a_place_that_cannot_be_written_is_said_at_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir("/proc")  # not even root writes there
    with pytest.raises(MaskcastError, match=r"/proc/mlflow\.db: cannot be written .*; set MLFLOW_TRACKING_URI"):
        track_something(folder)
    assert main(["models", "list"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
