"""Job scripts of recipes/slurm: a job that is asked to end waits again, and goes on to the same bits."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.conftest import ROOT, write_store
from tests.integration.test_stopping import TRAIN, WAIT_S, start

from maskcast.__main__ import main

SCRIPTS = ROOT / "recipes/slurm"
TRAINING = {"epochs": 2, "steps_per_epoch": 10, "batch_size": 2, "learning_rate": 0.01, "checkpoint_every": 5}
SIGNALLED = f"""#!{sys.executable}
import os, sys
from maskcast.__main__ import console

def signal(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("checkpoint.pt") and "SENDS" in os.environ:
        os.killpg(0, int(os.environ.pop("SENDS")))

sys.addaudithook(signal)
console()
"""
"""The command, which sends its whole job a signal while it writes a checkpoint."""
DVC_SAYS = "echo 'ERROR: failed to run: maskcast train_masker, exited with 75' >&2; exit 255"
CASES = {  # what the command does, and the exit code of each manager's script: SLURM, Grid Engine, LSF
    "exit 0": (0, 0, 0),
    "exit 75": (75, 99, 75),
    DVC_SAYS: (75, 99, 75),
    "echo 'error: no' >&2; exit 2": (2, 2, 2),
    # the whole job gets the signals, and what does not know them outlives them
    "kill -USR1 0; kill -TERM $PPID; exit 75": (75, 99, 75),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to submit from, and commands of SLURM that note what they are asked."""
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", 'exec "$@"'), ("scontrol", 'echo "$@" >> requeued')):
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin/maskcast").write_text(SIGNALLED)
    (tmp_path / "bin/maskcast").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_SUBMIT_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(script: str, command: list[str], **environment: str) -> int:
    done = subprocess.run(
        ["bash", f"recipes/slurm/{script}", *command],
        env=os.environ | environment,
        start_new_session=True,
        check=False,
    )
    return done.returncode


@pytest.mark.parametrize("does", CASES)
def test_each_script_has_the_code_that_its_manager_requeues_by(does: str, folder: Path) -> None:
    (folder / "does.sh").write_text(does)
    command = ["bash", "does.sh"]
    codes = (
        run("slurm.sbatch", command),
        run("grid_engine.sh", command),
        run("lsf.sh", [], MASKCAST_COMMAND=" ".join(command)),
    )
    assert codes == CASES[does]
    requeued = folder / "requeued"
    assert (requeued.read_text() if requeued.exists() else "") == ("requeue 17\n" if codes[0] == 75 else "")


def test_a_job_that_gets_a_signal_goes_on_to_the_same_bits(folder: Path, empty_database: Path) -> None:
    write_store(folder / "clips")
    section = {"model": {"arch": "unet", "width": 4}, "training": TRAINING}
    (folder / "params.yaml").write_text(yaml.safe_dump({"train_masker": section}))
    shutil.copy(empty_database, folder / "mlflow.db")
    job = ["bash", "recipes/slurm/slurm.sbatch", "maskcast", *TRAIN]
    for number, epoch in ((signal.SIGUSR1, 1), (signal.SIGTERM, 2)):
        process = start(folder, *job, SENDS=str(int(number)))
        code, said = process.wait(WAIT_S), (folder / "log").read_text()
        assert (code, said.count("stopped at epoch "), f"epoch {epoch} of 2: " in said) == (75, 1, True), said
    assert (folder / "requeued").read_text() == "requeue 17\n" * 2
    process = start(folder, *job)
    assert process.wait(WAIT_S) == 0, (folder / "log").read_text()
    words = [{"masker": "other", "metrics.json": "other.json"}.get(word, word) for word in TRAIN]
    assert main(words) == 0
    one, other = (folder / name / "model.safetensors" for name in ("masker", "other"))
    assert one.read_bytes() == other.read_bytes()
