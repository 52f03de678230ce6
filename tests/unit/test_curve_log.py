"""The curves of a killed run are kept in a file for the page of the run that resumes it."""

from contextlib import closing
from pathlib import Path

from maskcast.runner.curve_log import CurveLog


def record(path: Path, owner: str, *steps: int) -> None:
    with closing(CurveLog(path, owner)) as log:
        for step in steps:
            log.metrics({"train/loss": 1 / step}, step)
            assert CurveLog(path, owner).earlier[-1][0] == step  # at once, because a killed run closes nothing


def test_a_resumed_run_finds_earlier_reports_and_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "masker.resume" / "curves.jsonl"
    record(path, "a", 1, 2)
    record(path, "a", 2, 4)
    assert CurveLog(path, "a").earlier == [
        (1, {"train/loss": 1.0}),
        (2, {"train/loss": 0.5}),
        (2, {"train/loss": 0.5}),
        (4, {"train/loss": 0.25}),
    ]


def test_a_run_with_other_params_starts_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    record(path, "a", 1, 2)
    assert CurveLog(path, "b").earlier == []
    record(path, "b", 5)
    assert CurveLog(path, "b").earlier == [(5, {"train/loss": 0.2})]


def test_a_line_that_a_kill_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    record(path, "a", 1, 2)
    path.write_bytes(path.read_bytes()[:-9])
    record(path, "a", 4)
    assert [step for step, _ in CurveLog(path, "a").earlier] == [1, 4]


def test_without_steps_no_file_is_written(tmp_path: Path) -> None:
    path = tmp_path / "curves.jsonl"
    with closing(CurveLog(path, "a")) as log:
        log.metrics({"val_jaccard": 0.5}, None)
    assert not path.exists()
    path.write_bytes(b"\xff\x00")
    assert CurveLog(path, "a").earlier == []
