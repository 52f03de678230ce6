"""The Makefile: what it installs, and what it says to whoever has no Git or has not activated the environment."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.conftest import ROOT

RECORD = """#!/bin/sh
echo "$(basename "$0") $*" >> called
"""
CUDA = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """An export of the last commit, as a ZIP download is; its environment only writes down what is called."""
    folder = tmp_path / "maskcast"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--extract"], cwd=folder, input=archive, check=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / ".venv/bin").mkdir(parents=True)
    for program in ("python", "uv", "dvc", "maskcast"):
        (folder / ".venv/bin" / program).write_text(RECORD)
        (folder / ".venv/bin" / program).chmod(0o755)
    return folder


OF_MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")  # the gate runs tests below make, which then says where it goes


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "GIT_DIR", *OF_MAKE)}
    env["GIT_CEILING_DIRECTORIES"] = str(folder.parent)
    return subprocess.run(["make", *words], cwd=folder, env=env, capture_output=True, text=True, check=False)


def locked(path: Path) -> dict[str, str]:
    """Returns the entries of a lock, by name and version."""
    entries = re.split(r"^(?=[a-z])", path.read_text(), flags=re.MULTILINE)
    return {entry.split()[0]: entry for entry in entries if "==" in entry}


def test_without_git_one_line_says_what_to_do_before_anything_is_installed(checkout: Path) -> None:
    done = make(checkout, "repro")
    assert done.returncode != 0
    assert done.stderr.startswith(
        "error: this folder is no Git repository, which DVC needs (a ZIP download is none)."
    )
    assert "git init && make repro" in done.stderr.splitlines()[0]
    assert not (checkout / "called").exists()


def test_what_that_line_says_suffices(checkout: Path) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    done = make(checkout, "repro")
    assert done.returncode == 0, done.stderr
    assert (checkout / "called").read_text().splitlines()[-2:] == ["dvc repro", "maskcast summary"]
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    env["PYTHONPATH"] = str(checkout / "src")
    done = subprocess.run(
        ["dvc", "repro", "code"], cwd=checkout, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (checkout / "code/train_masker").exists()


@pytest.mark.parametrize("target", ["install", "repro"])
def test_how_to_activate_is_said_to_whoever_has_not(
    target: str, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "--quiet"], cwd=checkout, check=True)
    assert make(checkout, target).stdout.splitlines()[-1].endswith(": source .venv/bin/activate")


def test_an_older_python_is_told_before_anything_is_installed(checkout: Path) -> None:
    (checkout / ".venv/bin/python").write_text("#!/bin/sh\n[ $1 = --version ] && echo Python 3.10.13\n")
    done = make(checkout, "install")
    remedy = "rm -r .venv && make install PYTHON=python3.11"
    assert done.returncode == 2
    assert f"error: .venv has Python 3.10.13, and maskcast needs 3.11 or later: {remedy}" in done.stderr
    assert not (checkout / "called").exists()


def test_an_environment_without_pip_gets_it(checkout: Path) -> None:
    (checkout / ".venv/bin/python").write_text(f'{RECORD}[ "$*" != "-m pip --version" ]\n')
    assert make(checkout, "install").returncode == 0
    assert "python -m ensurepip" in (checkout / "called").read_text().splitlines()


def test_the_locked_packages_are_installed_by_their_hashes(checkout: Path) -> None:
    assert make(checkout, "install").returncode == 0
    synced = [line for line in (checkout / "called").read_text().splitlines() if line.startswith("uv pip sync")]
    assert synced == ["uv pip sync --quiet --python .venv/bin/python --require-hashes requirements.lock"]


def test_the_cpu_build_leaves_out_cuda_and_nothing_else(checkout: Path) -> None:
    assert make(checkout, "install", "TORCH=cpu").returncode == 0
    lines = [line for line in (checkout / "called").read_text().splitlines() if line.startswith("uv pip")]
    assert lines[0] == "uv pip sync --quiet --python .venv/bin/python --require-hashes .venv/cpu.lock"
    whole, cpu = locked(checkout / "requirements.lock"), locked(checkout / ".venv/cpu.lock")
    assert cpu == {name: entry for name, entry in whole.items() if not CUDA.match(name)}
    torch, torchvision = (
        next(name for name in whole if name.startswith(f"{one}==")) for one in ("torch", "torchvision")
    )
    assert (
        lines[1]
        == f"uv pip install --quiet --python .venv/bin/python --no-deps --torch-backend cpu {torch} {torchvision}"
    )
    assert lines[2].endswith("--editable .")


def test_another_lock_leaves_the_build_of_torch_as_it_is(checkout: Path) -> None:
    assert make(checkout, "install", "TORCH=cpu").returncode == 0
    (checkout / "called").unlink()
    later = (checkout / ".venv/installed").stat().st_mtime + 1
    os.utime(checkout / "requirements.lock", (later, later))  # as `git pull` does
    assert make(checkout, "install").returncode == 0
    assert "--torch-backend cpu" in (checkout / "called").read_text()


def test_another_build_is_refused(checkout: Path) -> None:
    done = make(checkout, "install", "TORCH=gpu")
    assert done.returncode == 2 and "TORCH=gpu: write TORCH=cpu for the CPU builds of torch" in done.stderr


def test_the_gate_leaves_nothing_behind_where_tests_fail(tmp_path: Path) -> None:
    (tmp_path / "make").write_text(f"""#!/bin/bash
        case $1 in
            check) echo $$ > {tmp_path}/check; exec sleep 60;;
            test) while [ ! -s {tmp_path}/check ]; do sleep 0.1; done; exit 1;;
        esac""")
    for tool in ("make", "git", "dockerd", "mmdebstrap", "mksquashfs", "chromium", "pg_ctlcluster"):
        (tmp_path / tool).touch()
        (tmp_path / tool).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    assert subprocess.run([ROOT / ".ci/run"], env=environment, check=False).returncode == 1
    check = int((tmp_path / "check").read_text())
    for _ in range(50):
        if not psutil.pid_exists(check) or psutil.Process(check).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.1)
    raise AssertionError(f"process {check} runs on")
