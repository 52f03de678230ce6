"""`maskcast pipeline run-local`: what the user sees of it; test_parity.py has what it computes."""

import os
import subprocess
import sys
from argparse import Namespace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.conftest import ROOT

from maskcast.params import Params
from maskcast.report.page import Page
from pipelines import local, local_log
from pipelines.compile import build, grid_plan, read_values
from pipelines.dag import names_in
from pipelines.local import write_pages
from pipelines.local_log import StageLog
from pipelines.placement import Placement


def run_local(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskcast", "pipeline", "run-local", "-S", "fetch_dataset.uri=/nowhere"]
    return subprocess.run(
        [*command, "--out", str(out), *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=800
    )


def test_a_stage_that_fails_is_one_line_and_the_rest_is_in_a_file(tmp_path: Path) -> None:
    done = run_local(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    stage, error = done.stderr.splitlines()
    assert stage.startswith("1/10 fetch_dataset ... failed after ")
    assert error.startswith("error: fetch_dataset: /nowhere: no such file or folder; fix the path")
    (folder,) = tmp_path.iterdir()
    log = folder / "log.txt"
    assert error.endswith(f" (full output: {log})")
    assert "Executing task" in log.read_text() and "Traceback" in log.read_text()


def test_verbose_shows_all(tmp_path: Path) -> None:
    done = run_local(tmp_path, "--verbose")
    assert done.returncode == 2
    assert "Executing task" in done.stdout and "/nowhere: no such file or folder" in done.stdout
    assert done.stderr.splitlines()[-1].endswith("(see its error above)")


def test_a_run_finds_its_own_folder_beside_those_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Built:
        name = "maskcast-video"

        def __init__(self, ours: int) -> None:
            self.places = [tmp_path / f"{self.name}-2026-11-27-10-{ours}0-0{second}-7" for second in (0, 2)]
            self.own = self.places[ours]

        def __call__(self) -> None:
            for place in self.places:
                place.mkdir()
            print(f'        "outputFile": "{self.own}/fetch-dataset/executor_output.json"')

    monkeypatch.setenv("PATH", os.environ["PATH"])
    for built, total in ((Built(0), None), (Built(1), 1)):  # the other one begins later, or at the same time
        assert local.run_local(built, tmp_path, total=total) == built.own


def test_each_stage_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    kept, times = StringIO(), iter((0.0, 3.0, 10.0, 74.6))
    monkeypatch.setattr(local_log, "time", SimpleNamespace(monotonic=lambda: next(times)))
    log = StageLog(kept, 2, {"fetch-dataset": "fetch_dataset", "train-masker-2": "train_segmenter"})
    for text in (
        "12:00:00.1 - INFO - Executing task \x1b[96m'fetch-dataset'\x1b[0m\n",
        "    epoch 1\n    ValueError: nothing to",
        " worry about\n",
        "12:00:00.2 - INFO - Task \x1b[96m'fetch-dataset'\x1b[0m finished with status \x1b[92mSUCCESS\x1b[0m\n",
        "12:00:00.3 - INFO - Executing task 'train-masker-2'\n",
        "    maskcast.errors.MaskcastError: clips: none; prepare some\n",
        "12:00:00.4 - INFO - Task 'train-masker-2' finished with status FAILURE\n",
    ):
        log.write(text)
    assert capsys.readouterr().err.splitlines() == [
        "1/2 fetch_dataset ... done after 3 s",
        "2/2 train_segmenter ... failed after 65 s",
    ]
    assert (log.stage, log.error) == ("train_segmenter", "clips: none; prepare some")
    assert "epoch 1" in kept.getvalue() and "nothing to worry about" in kept.getvalue()


def test_stages_at_the_same_time_have_their_own_times(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter((0.0, 5.0, 20.0, 40.0))
    monkeypatch.setattr(local_log, "time", SimpleNamespace(monotonic=lambda: next(times)))
    log = StageLog(StringIO(), 7, {"a": "masker", "b": "segmenter"})
    for text in ("Executing task 'a'", "Executing task 'b'"):
        log.write(f"{text}\n")
    log.write("Task 'a' finished with status FAILURE\n")
    assert log.stage == "masker", "that failed, not that began last"
    log.write("Task 'b' finished with status SUCCESS\n")
    assert capsys.readouterr().err.splitlines() == [
        "1/7 masker ... ",
        "2/7 segmenter ... ",
        "masker failed after 20 s",
        "segmenter done after 35 s",
    ]


def test_names_of_tasks_are_those_of_the_pipeline_also_in_a_loop() -> None:
    on, grid = Placement("image"), ROOT / "recipes/video/grid.yaml"
    given = Namespace(pipeline="video", params=ROOT / "recipes/video/params.yaml", grid=grid, jobs=1)
    values, _ = read_values("video", given.params, ())
    names = names_in(build("video", values, on, grid_plan(given, values)))
    assert set(names.values()) >= {"train_masker", "train_segmenter", "evaluate_many"}
    assert names["train-masker-2"] == "train_segmenter"


def test_pages_get_names_that_a_browser_opens_and_an_index(tmp_path: Path) -> None:
    for task in ("train-masker", "evaluate"):
        (tmp_path / task).mkdir()
        Page(task.replace("-", "_")).write(tmp_path / task / "page", {"score": 1.0}, Params(), {})
    index = write_pages(tmp_path)
    assert index == tmp_path / "pages/index.html"
    assert all(f'href="{name}.html"' in index.read_text() for name in ("train_masker", "evaluate"))
    names = sorted(path.name for path in index.parent.iterdir())
    assert names == ["evaluate.html", "index.html", "train_masker.html"]
