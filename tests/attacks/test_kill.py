"""Stages that are killed and started again end as unbroken ones do: the small form of `kill.py`."""

import subprocess
import sys

from tests.conftest import ROOT


def test_a_killed_stage_ends_as_an_unbroken_one() -> None:
    command = [sys.executable, "tests/attacks/kill.py", "--kills", "2", "--stages", "train_masker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each ended as an unbroken run does" in done.stdout
