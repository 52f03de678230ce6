"""The scripts by which shells complete `maskcast`."""

import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from tests.conftest import ROOT

import pipelines.cli
from maskcast.__main__ import main
from maskcast.commands import COMMANDS
from maskcast.runner.stage import get_stage, stage_names

# What bash does at a press of the tab key, for the words that it is given.
PRESS = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_shtab_maskcast maskcast "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script for bash, made in the project's folder."""
    path = tmp_path_factory.mktemp("completion") / "maskcast"
    path.write_text(printed("bash", ROOT))
    return path


def printed(shell: str, folder: Path) -> str:
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as said:
        patch.chdir(folder)
        assert main(["completion", shell]) == 0
    return said.getvalue()


def completed(script: Path, folder: Path, *words: str) -> list[str]:
    command = ["bash", "--norc", "-c", PRESS, "bash", str(script), "maskcast", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_stages_commands_and_their_flags_are_completed(script: Path, tmp_path: Path) -> None:
    assert sorted(completed(script, tmp_path, "")) == sorted([*COMMANDS, *stage_names()])
    assert completed(script, tmp_path, "train_") == ["train_detector", "train_masker"]
    assert completed(script, tmp_path, "models", "pro") == ["promote"]
    assert completed(script, tmp_path, "models", "export", "champion", "--format", "") == ["torch-export", "onnx"]


@pytest.mark.parametrize("stage", stage_names())
def test_every_port_of_a_stage_is_completed(stage: str, script: Path, tmp_path: Path) -> None:
    flags = completed(script, tmp_path, stage, "--")
    assert {f"--{port.name}" for port in get_stage(stage).ports} | {"--params", "--name"} <= set(flags)


def test_commands_of_a_project_are_completed_where_it_is_at_hand(script: Path, tmp_path: Path) -> None:
    assert completed(script, tmp_path, "pipeline", "") == list(pipelines.cli.COMMANDS)
    assert "--cluster" in completed(script, tmp_path, "pipeline", "submit", "--")
    elsewhere = tmp_path / "script"
    elsewhere.write_text(printed("bash", tmp_path))
    assert "pipeline" in completed(elsewhere, tmp_path, "")


def test_paths_are_completed_by_files_and_folders(script: Path, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clip.mp4").touch()
    assert sorted(completed(script, tmp_path, "train_masker", "--clips", "cl")) == ["clip.mp4", "clips"]
    assert sorted(completed(script, tmp_path, "forecast", "cl")) == ["clip.mp4", "clips"]
    assert completed(script, tmp_path, "forecast", "--output", "cl") == ["clips"]


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells_have_scripts_of_the_same_words(shell: str) -> None:
    text = printed(shell, ROOT)
    assert [name for name in (*COMMANDS, *stage_names(), "run-local", "--masker") if name not in text] == []
