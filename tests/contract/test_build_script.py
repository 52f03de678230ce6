"""docker/build.sh gives the builder the stages that an image stands on and no others."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.conftest import ROOT

STUB = """#!/bin/sh
if [ "$1" = build ] && [ "$2" != --help ]; then cat > "$STDIN"; fi
"""


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ("runtime", ["build", "deps", "app", "cpu", "base", "runtime"]),
        ("runtime-cuda", ["build", "deps", "app", "base", "cuda", "runtime-cuda"]),
        ("mlflow", ["build", "base", "mlflow-venv", "mlflow"]),
    ],
)
def test_a_builder_that_makes_every_stage_makes_none_in_vain(
    target: str, stages: list[str], tmp_path: Path
) -> None:
    (tmp_path / "docker").write_text(STUB)
    (tmp_path / "docker").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "STDIN": str(tmp_path / "stdin"),
    }
    subprocess.run([ROOT / "docker/build.sh", target], env=environment, check=True, capture_output=True)
    given = (tmp_path / "stdin").read_text()
    assert re.findall(r"^FROM \S+ AS (\S+)$", given, re.MULTILINE) == stages
    whole = (ROOT / "docker/Dockerfile").read_text()
    assert given.startswith(whole[: whole.index("FROM ")])
    for stage in re.split(r"^(?=FROM )", given, flags=re.MULTILINE)[1:]:
        assert stage.rstrip() in whole


def test_without_a_commit_a_line_says_that_it_names_the_image(tmp_path: Path) -> None:
    (tmp_path / "docker").mkdir()  # as in a ZIP download
    shutil.copy(ROOT / "docker/build.sh", tmp_path / "docker")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/docker").write_text(STUB)
    (tmp_path / "bin/docker").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "GIT_CEILING_DIRECTORIES": str(tmp_path.parent),
    }
    command = [tmp_path / "docker/build.sh", "runtime"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: no Git commit found, which the tag needs" in done.stderr
