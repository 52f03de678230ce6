"""The command line as a whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskcast.__main__ import COMMANDS, main


@pytest.mark.parametrize("words", [("--help",), ("write-annotations", "0", "1", "{}", "22")])
def test_a_reader_that_has_had_enough_sees_no_traceback(words: tuple[str, ...], tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)  # as `| head -0` does
    (tmp_path / "video_0").mkdir()
    command = [sys.executable, "-m", "maskcast", *(word.format(tmp_path) for word in words)]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in COMMANDS)
