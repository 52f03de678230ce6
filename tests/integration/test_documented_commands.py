"""The commands of README.md and docs that need nothing but a finished run, as they stand there."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import moving_squares
from tests.documented import RUN, Command, commands
from tests.integration.project import Project
from tests.unit.test_evaluate_coco import content
from tests.videos import encode_frames

from maskcast.__main__ import main

COMMANDS = {f"{command.file}: {command}": command for command in commands() if command.fate == RUN}
FIRST = ("maskcast --help", "maskcast forecast sample")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def finished(first_run: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after `make repro`, whose model is the champion, with the files that the documentation names."""
    folder = tmp_path_factory.mktemp("documented") / "checkout"
    shutil.copytree(first_run.folder, folder, ignore=shutil.ignore_patterns(".git", ".dvc"))
    for name in ("my-cluster.yaml", "cluster.yaml"):
        shutil.copy(folder / "pipelines/cluster.yaml", folder / name)
    for name in ("street", "monday", "tuesday", "more-videos/wednesday"):
        encode_frames(folder / f"{name}.mp4", moving_squares(1, 60, 64, 96)[0])
    truth, results = content(folder)
    truth.rename(folder / "instances_val2017.json")
    results.rename(folder / "results.json")
    (folder / "images").rename(folder / "val2017")
    (folder / ".venv").symlink_to(sys.prefix)
    with pytest.MonkeyPatch.context() as patch:
        alone(patch, folder)
        assert main(["models", "promote"]) == 0
    return folder


def alone(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Goes there, without a server in the environment."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        patch.delenv(name)
    patch.chdir(folder)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_documented_command_works(command: Command, finished: Path, programs: Path) -> None:
    """In a new shell, which knows nothing but the README: it activates the environment.

    What is typed first is the program that was installed; others need not import torch each for itself.
    """
    script = f"source {shlex.quote(str(finished))}/.venv/bin/activate\n"
    if str(command) not in FIRST:
        script += f"PATH={shlex.quote(str(programs))}:$PATH\n"
    script += f"{shlex.join(command.words)}\n"
    new = {"HOME": str(finished), "PATH": os.defpath, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-e", "-c", script],
        cwd=finished / command.folder,
        env=new | {"PYTHONPATH": str(finished / "src")},  # where `make install` leads to, of a copy
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command.file} names `{command}`, which ends with an error: {done.stderr}"
