"""What a run is resumed by: params, inputs, and the code of its stage."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tests.conftest import ROOT

SOURCE = ROOT / "src/maskcast"
PRINT = "from maskcast.runner.code_digests import code_digest; print(code_digest('maskcast.stages.{}'))"


def digest(source: Path, stage: str = "train_masker") -> str:
    """Returns the digest of a stage's code by a copy of the package, in a process of its own."""
    command = [sys.executable, "-c", PRINT.format(stage)]
    environment = os.environ | {"PYTHONPATH": str(source)}
    return subprocess.run(
        command, cwd=source.parent, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The package in a zip file, from where Python imports it, too."""
    file = tmp_path / "maskcast.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in SOURCE.rglob("*.py"):
            archive.write(path, path.relative_to(SOURCE.parent))
    return file


def test_code_that_has_no_source_files_counts_by_its_version(packed: Path, tmp_path: Path) -> None:
    of_clone, of_zip = digest(SOURCE.parent), digest(packed)
    assert of_zip != of_clone and of_zip == digest(packed, "generate_masks")
    other = tmp_path / "other.zip"
    with zipfile.ZipFile(packed) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            about = f'{archive.read(name).decode()}\n__version__ = "99"\n'
            changed.writestr(name, about if name == "maskcast/__init__.py" else archive.read(name))
    assert digest(other) != of_zip
