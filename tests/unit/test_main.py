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


HELPS = """
import contextlib, io, sys
from maskcast.__main__ import COMMANDS, main
for words in ["--help"], *([name, "--help"] for name in COMMANDS):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main(words)
    assert said.getvalue().startswith("usage: maskcast"), words
print(sorted({"torch", "mlflow", "lightning", "av", "boto3", "kubernetes", "matplotlib"} & sys.modules.keys()))
"""


def test_no_help_imports_what_takes_seconds() -> None:
    done = subprocess.run([sys.executable, "-c", HELPS], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_help_tells_layouts_apart_and_names_allowed_and_default_values(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        main(["prepare_clips", "--help"])
    keys = capsys.readouterr().out.partition("keys of section")[2].splitlines()[1:]
    assert max(map(len, keys)) <= 100
    headings = [line.split()[1] for line in keys if line.startswith("      layout: ")]
    assert headings == ["competition", "clevrer", "frame_folders", "videos", "synthetic"]
    text = " ".join(" ".join(keys).split())
    assert "class 1. (one of index, binary; default binary)" in text
    assert "window_step: " in text and "null takes one clip a video, from its start. (default null)" in text
    assert "(default {train: train, validation: val, test: hidden})" in text


def test_help_says_as_below_of_what_it_lists_below(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train_masker", "--help"])
    text = capsys.readouterr().out
    assert "  model: Architecture and its sizes. (default as below)\n      arch: unet\n          width: " in text
    assert "      arch: smp_unet or smp_unetplusplus or smp_deeplabv3plus\n          encoder: " in text
