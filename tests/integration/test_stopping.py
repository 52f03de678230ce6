"""Ctrl-C and SIGTERM: one line that says how to go on, an exit code that tells, a run that is KILLED."""

import gc
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml
from tests.conftest import ROOT, write_store
from tests.lookalikes import davis

from maskcast.stopping import Stopped, pause_on_signals, raise_on_signals

TRAINING = {"epochs": 500, "steps_per_epoch": 20, "batch_size": 2, "learning_rate": 0.01, "checkpoint_every": 5}
TRAIN = ["train_masker", "--params", "params.yaml", "--clips", "clips"]
TRAIN += ["--masker", "masker", "--metrics", "metrics.json"]
GO_ON = "run the same command again to resume from the last checkpoint"
PROGRESS = ("epoch ", "training: ", "preparing ", "waiting for ")  # lines that come by the clock
WAIT_S = 300


@pytest.fixture
def folder(tmp_path: Path, empty_database: Path) -> Path:
    """A working directory with clips, and params of a training that takes too long."""
    write_store(tmp_path / "clips")
    write_params(tmp_path)
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return tmp_path


def write_params(folder: Path, **training: Any) -> None:
    section = {"model": {"arch": "unet", "width": 4}, "training": TRAINING | training}
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_masker": section}))


def start(folder: Path, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """Starts a command in a group of its own, as a shell does, with the stop signals as a terminal leaves them."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RANK"))}
    own |= {"OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1", **environment}
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=folder, env=own, stdout=log, stderr=log, start_new_session=True, preexec_fn=_listen
        )


def _listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def stop(
    folder: Path, process: subprocess.Popen[bytes], number: int, when: Callable[[], bool], group: bool
) -> str:
    """Sends a signal once something is so, and returns what the process said after that."""
    deadline = time.monotonic() + WAIT_S
    while not when():
        assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.02)
    before = len((folder / "log").read_bytes())
    (os.killpg if group else os.kill)(process.pid, number)
    process.wait(WAIT_S)
    said = (folder / "log").read_text()
    assert "Traceback" not in said and "KeyboardInterrupt" not in said, said
    return said[before:]


def without_progress(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith(PROGRESS)]


def only_run(folder: Path) -> mlflow.entities.Run:
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("maskcast").experiment_id])
    return run


def trains(folder: Path, checkpoint: Path) -> Callable[[], bool]:
    """Returns a function that says whether a training has a checkpoint, and its run is in the database."""

    def both() -> bool:
        with closing(sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)) as database:
            return checkpoint.exists() and bool(database.execute("SELECT 1 FROM runs").fetchone())

    return both


def maskcast(*words: str) -> list[str]:
    return [sys.executable, "-m", "maskcast", *words]


def test_a_training_that_is_stopped_says_where_and_goes_on_with_its_run(folder: Path) -> None:
    checkpoint, log = folder / "masker.resume/checkpoint.pt", folder / "log"
    process = start(folder, *maskcast(*TRAIN))
    said = stop(folder, process, signal.SIGINT, trains(folder, checkpoint), group=True)
    assert process.returncode == 130
    (line,) = without_progress(said)
    assert line.startswith("stopped at epoch ") and line.endswith(f" of 500: {GO_ON}")
    run = only_run(folder)
    assert run.info.status == "KILLED"

    process = start(folder, *maskcast(*TRAIN))
    said = stop(folder, process, signal.SIGTERM, lambda: b"resuming at" in log.read_bytes(), group=False)
    assert process.returncode == 75
    assert said.count("stopped at epoch ") == 1
    assert (only_run(folder).info.run_id, only_run(folder).info.status) == (run.info.run_id, "KILLED")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGUSR1, 75), (signal.SIGHUP, 75)])
def test_all_processes_of_a_training_stop_in_one_line(folder: Path, number: int, code: int) -> None:
    write_params(folder, processes=2)
    process = start(folder, *maskcast(*TRAIN))
    said = stop(folder, process, number, trains(folder, folder / "masker.resume/checkpoint.pt"), group=True)
    assert process.returncode == code
    assert without_progress(said) == [f"stopped: {GO_ON}"]
    assert only_run(folder).info.status == "KILLED"


SHIM = """
import sys, yaml
from maskcast.runner.run import run_stage
params = yaml.safe_load(open("params.yaml"))["train_masker"]
run_stage("train_masker", params, clips="clips", masker="masker", metrics="metrics.json")
"""


@pytest.mark.parametrize(
    ("pod", "volume", "way_on"),
    [(True, "volume/r1/", GO_ON), (True, "", "nothing was written"), (False, "", GO_ON)],
    ids=["pod with a volume", "pod", "script"],
)
def test_a_pod_or_script_that_is_stopped_ends_without_a_traceback(
    pod: bool, volume: str, way_on: str, folder: Path
) -> None:
    variables = {"KFP_RUN_ID": "r1"} if pod else {}
    variables |= {"MASKCAST_RESUME_DIR": str(folder / "volume")} if volume else {}
    process = start(folder, sys.executable, "-c", SHIM, **variables)
    checkpoint = folder / f"{volume}masker.resume/checkpoint.pt"
    said = stop(folder, process, signal.SIGTERM, trains(folder, checkpoint), group=False)
    assert process.returncode == 75
    assert said.splitlines()[-1].endswith(f" of 500: {way_on}")
    assert only_run(folder).info.status == "KILLED"


def test_below_dvc_the_stage_has_its_line(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "-q"], cwd=folder, check=True)
    stage = {"cmd": " ".join(maskcast(*TRAIN)), "deps": ["clips"], "outs": ["masker", "metrics.json"]}
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train_masker": stage}}))
    process = start(folder, sys.executable, "-m", "dvc", "repro", SHELL="/bin/sh")
    said = stop(folder, process, signal.SIGINT, trains(folder, folder / "masker.resume/checkpoint.pt"), group=True)
    assert process.returncode != 0
    assert said.count(GO_ON) == 1
    assert only_run(folder).info.status == "KILLED"


def start_workers(
    folder: Path, *program: str, clips: int = 400
) -> tuple[subprocess.Popen[bytes], Callable[[], bool]]:
    """Starts a stage with two workers, and returns a function that says whether they work."""
    source = {"layout": "synthetic", "train": clips, "val": 2, "unlabeled": 2, "hidden": 2}
    params = {"prepare_clips": {"source": source, "height": 80, "width": 120, "workers": 2}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    (folder / "raw").mkdir(exist_ok=True)
    words = ["prepare_clips", "--params", "params.yaml", "--raw", "raw", "--clips", "made"]
    process = start(folder, *(program or maskcast()), *words)
    shard = folder / "made.partial"
    return process, lambda: shard.is_dir() and any(path.stat().st_size for path in shard.iterdir())


def test_worker_processes_say_nothing(folder: Path) -> None:
    process, some = start_workers(folder)
    said = stop(folder, process, signal.SIGINT, some, group=True)
    assert process.returncode == 130
    assert without_progress(said) == ["stopped: nothing was written"]
    assert not (folder / "made").exists()


def test_workers_end_with_a_stage_that_is_killed(folder: Path) -> None:
    process, some = start_workers(folder)
    found: list[psutil.Process] = []

    def all_work() -> bool:
        found[:] = psutil.Process(process.pid).children(recursive=True)
        return some() and len(found) >= 2

    stop(folder, process, signal.SIGKILL, all_work, group=False)
    _, alive = psutil.wait_procs(found, timeout=60)
    for each in alive:
        each.kill()
    assert not alive


STOPPED_LATE = """
import os, signal, sys
from maskcast.__main__ import main

def stop(event, arguments):
    if event == "os.remove" and str(arguments[0]).endswith("made.partial.lock"):
        os.kill(os.getpid(), signal.SIGTERM)

sys.addaudithook(stop)
sys.exit(main(sys.argv[1:]))
"""


def test_a_stop_after_the_outputs_are_in_place_says_so(folder: Path) -> None:
    for _ in range(2):  # new outputs, then others in the place of these
        process, _ = start_workers(folder, sys.executable, "-c", STOPPED_LATE, clips=4)
        process.wait(WAIT_S)
        assert process.returncode == 143
        assert (folder / "log").read_text().splitlines()[-1] == "stopped: the outputs are complete"
        assert (folder / "made/index.json").exists()


def test_a_command_that_waits_stops_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections and answers none
        process = start(
            folder, *maskcast("models", "list"), MLFLOW_TRACKING_URI=f"http://127.0.0.1:{deaf.getsockname()[1]}"
        )
        deaf.settimeout(WAIT_S)
        with deaf.accept()[0]:
            said = stop(folder, process, signal.SIGINT, lambda: True, group=True)
    assert (process.returncode, said.splitlines()) == (130, ["stopped"])


def test_init_says_what_it_was_doing(folder: Path) -> None:
    davis(folder / "set", size=(64, 96))
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        hub = {"HF_ENDPOINT": f"http://127.0.0.1:{deaf.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}
        process = start(folder, *maskcast("init", "set", "--force"), **hub, HF_HOME=str(folder / "hub"))
        deaf.settimeout(WAIT_S)
        with deaf.accept()[0]:
            said = stop(folder, process, signal.SIGTERM, lambda: True, group=False)
    line = "stopped while asking the Hugging Face hub for pretrained weights"
    assert (process.returncode, said.splitlines()[-1]) == (143, line)


def test_a_library_that_makes_an_error_of_a_stop_does_not_hide_it() -> None:
    """A Ctrl-C while pydantic's core looked at a params class was a SchemaError, with a traceback."""
    with pytest.raises(Stopped), raise_on_signals():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as stop:
            raise RuntimeError("SchemaError") from stop


def test_a_process_that_its_group_and_torchrun_stop_is_stopped_once() -> None:
    """torchrun passes Ctrl-C on as SIGTERM, which ended the wait for MLflow to receive the last metrics."""
    with pytest.raises(Stopped) as caught, raise_on_signals():
        try:
            with pause_on_signals(None):
                signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGTERM)
    assert caught.value.number == signal.SIGINT


def test_what_was_open_where_a_stop_came_is_let_go_at_once() -> None:
    """The collector came upon it at any later time: upon an open connection, within another test."""
    opened: list[weakref.ref[socket.socket]] = []

    def work() -> None:
        with socket.socket() as one:
            opened.append(weakref.ref(one))
            signal.raise_signal(signal.SIGTERM)

    gc.disable()
    try:
        with pytest.raises(Stopped), raise_on_signals():
            work()
        assert opened[0]() is None
    finally:
        gc.enable()


def test_run_local_says_where_it_was_stopped(folder: Path) -> None:
    shutil.copy(ROOT / "params.yaml", folder)
    process = start(folder, *maskcast("pipeline", "run-local"))
    log = folder / "log"
    said = stop(folder, process, signal.SIGTERM, lambda: b"prepare_clips ... " in log.read_bytes(), group=False)
    assert process.returncode == 143
    assert re.search(r"stopped in prepare_clips; full output: .*/log-\d+\.txt$", said)


# KFP starts a stage by a shell, which does not pass a signal on.
LOCAL = """
import subprocess, sys
from pipelines.local import _stages_stop_first
command = ["sh", "-ec", '"$0" -c "$1"; exit', sys.executable, sys.argv[1]]
with _stages_stop_first():
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stage:
        for line in stage.stdout:
            print(line, end="", flush=True)
    raise RuntimeError("the stage failed")
"""
STAGE = """
import time
from maskcast.stopping import raise_on_signals
with raise_on_signals():  # in which a stage says its line: both get Ctrl-C, and then it gets SIGTERM, too
    try:
        print("works", flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        print("stopped at epoch 3", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_below_run_local_the_stage_ends_first_and_is_heard(folder: Path, number: int) -> None:
    main = f"import sys\nfrom maskcast.stopping import report_stop\ntry:{LOCAL.replace(chr(10), chr(10) + '    ')}"
    main += "\nexcept KeyboardInterrupt as stop:\n    sys.exit(report_stop(stop))\n"
    process = start(folder, sys.executable, "-c", main, STAGE, PYTHONPATH=str(ROOT))
    log = folder / "log"
    said = stop(folder, process, number, lambda: b"works" in log.read_bytes(), group=number == signal.SIGINT)
    assert (process.returncode, said.splitlines()) == (128 + number, ["stopped at epoch 3", "stopped"])
