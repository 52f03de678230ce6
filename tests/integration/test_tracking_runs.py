"""Which MLflow run a stage has: refused for good, found again, joined, named; on a real server and on SQLite."""

import os
import shutil
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tests import servers
from tests.conftest import write_store
from tests.integration.mlflow_server import mlflow_server

from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.registry.lineage import lineage, upstream_runs
from maskcast.registry.store import Registry
from maskcast.runner import tracking
from maskcast.runner.mlflow_errors import convert_mlflow_errors
from maskcast.runner.provenance import Origin
from maskcast.runner.tracking import tracked_run


class ModelParams(Params):
    arch: str = "unet"
    width: int = 16


class TrainingParams(Params):
    epochs: int = 5
    mirror: bool = False
    ids: tuple[int, ...] = ()


class ExampleParams(Params):
    model: ModelParams = ModelParams()
    training: TrainingParams = TrainingParams()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Path:
    """A working directory with an input and an empty database, and an environment that names nothing."""
    for name in ("TRACKING_URI", "RUN_ID", "EXPERIMENT_NAME", "EXPERIMENT_ID"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    for name in ("KFP_RUN_ID", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    (tmp_path / "clips").write_text("data")
    return tmp_path


def origin(folder: Path, stage: str = "train_masker", **training: Any) -> Origin:
    params = ExampleParams(training=TrainingParams(**training))
    return Origin.of(stage, params, {"clips": folder / "clips"})


def track(folder: Path, stage: str = "train_masker", steps: int = 2, **training: Any) -> None:
    with tracked_run(origin(folder, stage, **training), folder / "masker.resume/mlflow_run_id") as run:
        for step in range(1, steps + 1):
            run.metrics({"loss": float(step)}, step)


def client_of(folder: Path) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs(client: mlflow.MlflowClient, experiment: str = "maskcast") -> list[mlflow.entities.Run]:
    """Returns the runs, oldest first."""
    found = client.get_experiment_by_name(experiment)
    return client.search_runs([found.experiment_id], order_by=["attributes.start_time ASC"]) if found else []


@contextmanager
def answering(status: int, text: bytes) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(servers.Handler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_POST = do_GET

    with servers.Server(Handler) as server:
        yield server.url


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MLFLOW_TRACKING_URI": ""}, "MLFLOW_TRACKING_URI is set but empty; unset it"),
        (
            {"MLFLOW_TRACKING_URI": "localhost:5000"},
            "localhost:5000: scheme is missing; set http://localhost:5000",
        ),
        (
            {"MLFLOW_TRACKING_URI": "/mnt/mlruns"},
            "/mnt/mlruns: MLflow 3 does not store runs in folders; use sqlite:",
        ),
        (
            {"MLFLOW_TRACKING_URI": "file:///mnt/mlruns"},
            "MLflow 3 does not store runs in folders; use sqlite:////",
        ),
        ({"MLFLOW_TRACKING_URI": "http://"}, "invalid host or port; set http://host:port"),
        ({"MLFLOW_TRACKING_URI": "http://host:port"}, "invalid host or port"),
        (
            {"MLFLOW_TRACKING_URI": "htp://host"},
            r"htp://host: MLflow error: .*; fix the cause or MLFLOW_TRACKING_URI",
        ),
        (
            {"MLFLOW_TRACKING_URI": "http://ann:p@ss/w@h"},
            r"http://\*\*\*@h: its user or password contains / @ . or #",
        ),
        (
            {"MLFLOW_TRACKING_URI": "http://host", "MLFLOW_TRACKING_TOKEN": "from-echo\n"},
            "MLFLOW_TRACKING_TOKEN: contains whitespace or non-ASCII characters; set only the token",
        ),
        ({"MLFLOW_RUN_ID": ""}, "MLFLOW_RUN_ID is set but empty; unset it"),
        ({"MLFLOW_RUN_ID": "0" * 32}, "MLFLOW_RUN_ID 0{32}: run not found on sqlite:.*; unset it"),
        ({"MLFLOW_EXPERIMENT_NAME": ""}, "MLFLOW_EXPERIMENT_NAME is set but empty; unset it"),
        (
            {"MLFLOW_EXPERIMENT_NAME": "gone"},
            "'gone' is deleted; restore it .`mlflow experiments restore --experiment-id 1`., or",
        ),
        ({"MLFLOW_EXPERIMENT_ID": "99"}, "MLFLOW_EXPERIMENT_ID 99: experiment not found on sqlite:.*; unset it"),
        ({"MLFLOW_EXPERIMENT_ID": "1"}, "experiment 'gone' is deleted"),
        (
            {"MLFLOW_EXPERIMENT_ID": "0", "MLFLOW_EXPERIMENT_NAME": "mine"},
            "MLFLOW_EXPERIMENT_ID 0 .'Default'. and MLFLOW_EXPERIMENT_NAME 'mine' are different experiments",
        ),
        ({"MLFLOW_TRACKING_URI": "sqlite:////no/such/x.db"}, "/no/such/x.db: cannot be written"),
        ({"MLFLOW_TRACKING_URI": "sqlite:///clips"}, "/clips: not an SQLite database; remove it, or set"),
    ],
)
def test_what_no_waiting_mends_fails_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    client = client_of(folder)
    client.delete_experiment(client.create_experiment("gone"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    refused(folder, said)
    assert runs(client) == runs(client, "Default") == []


def refused(folder: Path, said: str) -> None:
    work = tracked_run(origin(folder), folder / "masker.resume/mlflow_run_id")
    with pytest.raises(MaskcastError, match=said) as caught, work:
        pytest.fail("the work has begun")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "text", "said"),
    [
        (
            401,
            b"who are you",
            "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        ),
        (403, b"not you", "check MLFLOW_TRACKING_USERNAME .*or ask an administrator"),
        (404, b"<html>nothing here", "no MLflow server at this address, or one older than 3.1; fix"),
        (200, b"2.22.1", "has version 2.22.1, which is too old; upgrade it to 3.1 or later"),
        (200, b"<html>please log in", "MLflow error: .*fix the cause or MLFLOW_TRACKING_URI"),
        (200, b'{"experiment": 3}', "MLflow error: .*experiment.*; fix the cause or MLFLOW_TRACKING_URI"),
    ],
)
def test_what_a_server_refuses_fails_before_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, status: int, text: bytes, said: str
) -> None:
    with answering(status, text) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        refused(folder, said)
        if status == 401:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.replace("http", "https"))
            refused(folder, "use http:// if the server has no TLS, or set MLFLOW_TRACKING_SERVER_CERT_PATH")


def test_a_server_that_is_not_well_is_waited_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracking, "FLUSH_S", 0.5)
    with answering(503, b"starting") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        track(folder)
    said = capfd.readouterr().err
    assert "is unavailable (too many 503 error responses)" in said
    assert "lost 2 metrics, 0 files of train_masker" in said


def test_a_proxy_that_is_away_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.com:5000")
    monkeypatch.setenv("HTTP_PROXY", "http://ann:a-secret@127.0.0.1:9")
    said = r"refused.*; check that the proxy is running, and fix HTTPS_PROXY, HTTP_PROXY or NO_PROXY"
    with pytest.raises(MaskcastError, match=said) as caught, convert_mlflow_errors():
        Registry("maskcast").versions()
    assert "a-secret" not in str(caught.value)


def test_a_server_that_never_ends_an_answer_holds_up_no_stage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")
    monkeypatch.setattr(tracking, "OPEN_S", 0.1)
    monkeypatch.setattr(tracking, "FLUSH_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        track(folder)
    assert "lost 2 metrics, 0 files of train_masker" in capfd.readouterr().err


def test_ctrl_c_ends_the_waiting_for_a_server_and_keeps_the_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def slow_and_pressed(what: str) -> Iterator[None]:
        if what.startswith("MLflow to receive the last metrics and files"):
            signal.raise_signal(signal.SIGINT)
        yield

    monkeypatch.setattr(tracking, "log_if_slow", slow_and_pressed)
    with answering(503, b"gone") as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        track(folder)
    assert "was unavailable (too many 503 error responses); the outputs" in capfd.readouterr().err


@pytest.mark.parametrize("content", ["", "0" * 32, "no id at all\n", f"{'0' * 16}-{'1' * 32}"])
def test_a_key_that_leads_nowhere_starts_a_run(folder: Path, content: str) -> None:
    (folder / "masker.resume").mkdir()
    (folder / "masker.resume/mlflow_run_id").write_text(content)
    track(folder)
    (run,) = runs(client_of(folder))
    assert run.info.status == "FINISHED"


def test_a_run_of_other_work_is_ended_and_one_of_the_same_goes_on(folder: Path) -> None:
    for killed in (False, True):
        with pytest.raises(KeyboardInterrupt), tracked_run(origin(folder), folder / "r/mlflow_run_id") as tracked:
            tracked.metrics({"loss": 1.0}, 1)
            raise KeyboardInterrupt
        (run,) = runs(client_of(folder))
        assert run.info.status == "KILLED"
        if killed:  # as SIGKILL leaves it
            client_of(folder).update_run(run.info.run_id, status="RUNNING")
    with tracked_run(origin(folder, epochs=7), folder / "r/mlflow_run_id"):
        pass
    first, second = runs(client_of(folder))
    assert (first.info.status, second.info.status) == ("KILLED", "FINISHED")
    assert second.data.params["training.epochs"] == "7"


def test_a_run_that_was_killed_while_it_was_created_is_made_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("maskcast.runner.mlflow_run._log_missing", lambda *_: (_ for _ in ()).throw(SystemExit(9)))
        patch.setattr(tracking, "OPEN_S", 0.0)
        patch.setattr(threading, "excepthook", lambda _: None)
        track(folder)
    track(folder)
    (run,) = runs(client_of(folder))
    assert (run.info.status, run.data.params["training.epochs"]) == ("FINISHED", "5")
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["clips"]


def test_names_tell_runs_apart_and_tags_fit_a_screen(folder: Path) -> None:
    track(folder)
    track(folder, epochs=7)
    first, second = runs(client_of(folder))
    assert first.info.run_name == f"train_masker unet-16 5 epochs {origin(folder).digest[:4]}"
    assert second.info.run_name == f"train_masker unet-16 7 epochs {origin(folder, epochs=7).digest[:4]}"
    shown = [tag for tag in first.data.tags if not tag.startswith("mlflow.")]
    assert len(shown) <= 10, shown


def test_what_is_given_from_outside_is_joined(
    folder: Path, server: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the MLflow plugin of Kubeflow Pipelines 2.17 does: a run per pod, in an experiment of its choice."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("KFP_RUN_ID", "kfp-1")
    client = mlflow.MlflowClient(server)
    experiment = client.create_experiment("kfp-runs")
    outside = client.create_run(experiment, run_name="train-masker", tags={"kfp": "yes"})
    client.log_param(outside.info.run_id, "training.epochs", "5")  # some may be there
    monkeypatch.setenv("MLFLOW_RUN_ID", outside.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "maskcast-of-mine")
    for _ in range(2):  # a pod that is started again joins it again
        with tracked_run(origin(folder), folder / "r/mlflow_run_id") as run:
            run.metrics({"loss": 1.0}, 1)
            (folder / "masker").write_text("weights")
            run.outputs({"masker": folder / "masker"})
    said = capfd.readouterr().err
    assert "MLFLOW_EXPERIMENT_NAME maskcast-of-mine is ignored: MLFLOW_RUN_ID" in said
    (run,) = runs(client, "kfp-runs")
    assert (run.info.run_id, run.info.run_name, run.info.status) == (
        outside.info.run_id,
        "train-masker",
        "FINISHED",
    )
    defaults = {"training.mirror": "False", "training.ids": "[]"}  # the hash leaves them out
    assert run.data.params == {"model.arch": "unet", "model.width": "16", "training.epochs": "5"} | defaults
    tags = {"maskcast.group": "kfp-1", "maskcast.name": "train_masker", "kfp": "yes"}
    assert tags.items() <= run.data.tags.items()
    assert {"maskcast.git_sha", "maskcast.params_hash", "maskcast.outputs"} <= run.data.tags.keys()
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.digest == origin(folder).data["clips"]

    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    with tracked_run(
        Origin.of("evaluate", ExampleParams(), {"masker": folder / "masker"}), folder / "e/id"
    ) as last:
        last.metrics({"jaccard": 0.5}, None)
    joined, below = runs(client, "kfp-runs")
    assert below.data.tags["mlflow.parentRunId"] == joined.info.run_id  # of another stage: not mixed in
    number = Registry("joined", creates=True).create(
        "s3://x/y", below.info.run_id, {"maskcast.evaluation_run": below.info.run_id}
    )
    registry = Registry("joined")
    behind = upstream_runs(registry, registry.find(str(number)))
    assert [each.info.run_id for each in behind] == [joined.info.run_id, below.info.run_id]


def test_the_lineage_of_a_version_has_the_runs_of_every_experiment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a run on a machine whose clock is ahead; what no run has made is said."""
    for experiment, stage in (("training", "train_masker"), ("scores", "evaluate")):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        name = "clips" if stage == "train_masker" else "masker"
        of = Origin.of(stage, ExampleParams(), {name: folder / name})
        with tracked_run(of, folder / stage / "mlflow_run_id") as run:
            if stage == "train_masker":
                (folder / "masker").write_text("weights")
                run.outputs({"masker": folder / "masker"})
    client = client_of(folder)
    (trained,), (scored,) = (runs(client, name) for name in ("training", "scores"))
    registry = Registry("scattered", creates=True)
    registry.create("s3://x/y", scored.info.run_id, {"maskcast.evaluation_run": scored.info.run_id})
    for ahead_ms in (0, 60_000):
        with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
            command = "UPDATE runs SET start_time = start_time + ? WHERE run_uuid = ?"
            database.execute(command, (ahead_ms, trained.info.run_id))
        behind = upstream_runs(registry, registry.find("1"))
        assert {each.info.run_id for each in behind} == {trained.info.run_id, scored.info.run_id}
    inputs = [line for line in lineage(registry, "1").splitlines() if line.startswith("  input ")]
    assert {line.split()[1]: ", made by no run on this server" in line for line in inputs} == {
        "clips:": True,
        "masker:": False,
    }


def test_a_server_whose_files_are_in_a_folder_of_its_machine_is_refused_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights would be written to the client's own disk, where nobody finds them."""
    track(folder)  # metrics alone
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        # a path that is another folder for a process in another one, as for one on another machine
        database.execute("UPDATE experiments SET artifact_location = 'mlartifacts'")
        database.execute("UPDATE runs SET artifact_uri = 'mlartifacts/' || run_uuid || '/artifacts'")
    shutil.rmtree(folder / "mlartifacts", ignore_errors=True)
    (folder / "mlflow.db").rename(folder / "server.db")
    with mlflow_server(folder) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with tracked_run(origin(folder), folder / "r/mlflow_run_id") as run:  # no run has files yet
            run.file(folder / "clips", "data")
        track(folder)  # on the same machine
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")
        refused(folder, "this server has files of runs in its own folder mlartifacts, so they would be")


def test_an_experiment_is_chosen_by_its_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", client_of(folder).create_experiment("ours"))
    track(folder)
    assert len(runs(client_of(folder), "ours")) == 1


def test_an_input_that_is_replaced_during_the_work_is_said(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = origin(folder)
    with tracked_run(before, folder / "r/mlflow_run_id"):
        (folder / "clips").write_text("data")  # the same again
    assert "replaced" not in capfd.readouterr().err
    with tracked_run(before, folder / "r2/mlflow_run_id"):
        (folder / "clips").write_text("other data")
    assert (
        f"train_masker: inputs changed while the stage ran: clips ({folder / 'clips'})" in capfd.readouterr().err
    )
    run = runs(client_of(folder))[-1]
    assert run.data.tags["maskcast.inputs_changed"] == "clips"
    assert run.inputs.dataset_inputs[0].dataset.digest == before.data["clips"]


def test_a_shard_that_changes_during_the_work_is_said(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "clips").unlink()
    write_store(folder / "clips")
    before, shard = origin(folder), folder / "clips/frames-00000.npy"
    with tracked_run(before, folder / "r/mlflow_run_id"):
        os.utime(shard, ns=(1, 1))  # the same frames
    assert "inputs changed" not in capfd.readouterr().err
    with tracked_run(before, folder / "r2/mlflow_run_id"):
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
    assert f"inputs changed while the stage ran: clips ({folder / 'clips'})" in capfd.readouterr().err
    with tracked_run(before, folder / "r3/mlflow_run_id"):
        shard.unlink()
    assert f"inputs changed while the stage ran: clips ({folder / 'clips'})" in capfd.readouterr().err
