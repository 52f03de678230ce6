"""What a finished run says at its end."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from maskcast.__main__ import main
from maskcast.registry.loading import SAMPLE_PIPELINE
from maskcast.registry.summary import gain, program_name, summary

SCORES = {"clips": 20, "jaccard_h12": 0.7, "jaccard_h13": 0.5, "jaccard_last": 0.5, "jaccard_mean": 0.6}
OTHERS = {"persistence": 0.3, "constant_velocity": 0.497, "rigid_body": 0.62}


def scores_of(**last: float) -> dict[str, float]:
    """Contents of evaluate.json where the baselines have these scores at the last frame."""
    found = SCORES | {"accuracy_last": 0.9}
    for name, value in last.items():
        found |= {f"jaccard_last_{name}": value, f"jaccard_mean_{name}": value, f"accuracy_last_{name}": 0.9}
    return found


def write_results(folder: Path, **registration: Any) -> Path:
    folder.mkdir()
    (folder / "evaluate.json").write_text(json.dumps(scores_of(**OTHERS)))
    if registration:
        rival = {"score": "jaccard_mean", "value": 0.6, "baseline": "rigid_body", "theirs": 0.62}
        thresholds = [rival | {"passed": False}, {"score": "clips", "value": 20, "least": 5, "passed": True}]
        content = {"model": "maskcast", "versions": {"maskcast": 3, "maskcast-masker": 1}, "champion": None}
        content |= {"gate": {"score": "jaccard_mean"}, "thresholds": thresholds}
        (folder / "registration.json").write_text(json.dumps(content | registration))
    return folder


def test_the_sentence_is_honest_about_what_is_lost() -> None:
    assert gain(scores_of(**OTHERS), 22) == (
        "At frame 22 the forecaster's Jaccard of 0.50 is 0.20 above copying the last mask, level with "
        "constant velocity and 0.12 below `rigid_body`, which is given camera and physics."
    )
    assert gain(scores_of(persistence=0.61), 12) == (
        "At frame 12 the forecaster's Jaccard of 0.50 is 0.11 below copying the last mask."
    )


def test_the_foreground_stands_beside_what_the_background_lifts(tmp_path: Path) -> None:
    scores = scores_of(persistence=0.49) | {"jaccard_last_no_background": 0.12}
    assert gain(scores, 22) == (
        "At frame 22 the forecaster's Jaccard of 0.50 (0.12 without background) is 0.01 above copying the last "
        "mask."
    )
    write_results(tmp_path / "results")
    scores |= {"jaccard_last_no_background_persistence": 0.1}
    (tmp_path / "results/evaluate.json").write_text(json.dumps(scores))
    header, _, *rows = summary(tmp_path / "results").splitlines()[1:5]
    assert header.split() == ["last", "without", "background", "mean", "accuracy"]
    assert [row.split()[:3] for row in rows] == [
        ["forecaster", "0.500", "0.120"],
        ["persistence", "0.490", "0.100"],
    ]


@pytest.mark.parametrize(("split", "told"), [("val", 1), ("test", 0)])
def test_scores_of_clips_that_selected_the_epochs_are_told(tmp_path: Path, split: str, told: int) -> None:
    results = write_results(tmp_path / "results")
    (results / "report").mkdir()
    record = {"split": split, "size": [80, 120], "context": "true", "context_frames": 11, "horizon": 2}
    (results / "report/evaluation.json").write_text(json.dumps(record))
    line = "These clips selected the epochs, too; expect slightly less on new clips."
    condition = f"scored on: {split}, 20 clips, 11 true masks seen, 2 forecast"
    lines = summary(results).splitlines()
    assert lines.count(line) == told and lines.count(condition) == 1
    assert " clips at 80x120, macro Jaccard of frame" in lines[0]


def test_frames_without_labels_are_not_counted(tmp_path: Path) -> None:
    write_results(tmp_path / "results")
    scores = {name: value for name, value in scores_of(**OTHERS).items() if name != "jaccard_h13"}
    (tmp_path / "results/evaluate.json").write_text(json.dumps(scores | {"jaccard_h21": 0.5}))
    said = summary(tmp_path / "results")
    assert "macro Jaccard of frame 21 (last)" in said and "At frame 21 the forecaster's Jaccard" in said


def test_the_summary_ends_with_report_and_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    monkeypatch.setattr("maskcast.registry.summary._is_champion", lambda name, number: False)
    write_results(tmp_path / "results", passed=True)
    assert main(["summary"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "20 clips, macro Jaccard of frame 13 (last) and of frames 12 to 13 (mean)"
    assert lines[1].split() == ["last", "mean", "accuracy"]
    assert [line.split() for line in lines[3:7]] == [
        ["forecaster", "0.500", "0.600", "0.900"],
        ["persistence", "0.300", "0.300", "0.900"],
        ["constant_velocity", "0.497", "0.497", "0.900"],
        ["rigid_body", "0.620", "0.620", "0.900"],
    ]
    end = lines.index("", 8)
    verdict = (
        "The gate passed maskcast version 3. It compares jaccard_mean (the column mean): 0.600 <= 0.620 of "
        "rigid_body."
    )
    assert " ".join(lines[8:end]) == f"{gain(scores_of(**OTHERS), 13)} {verdict}"
    assert max(map(len, lines[:end])) <= 80
    assert lines[end + 1 :] == [
        f"report: {tmp_path / 'results/evaluate.html'}",
        "next:",
        "  maskcast forecast sample --model models:/maskcast/3",
        "  maskcast models list",
        "  maskcast models promote 3",
    ]


def test_the_report_is_named_by_its_own_path_where_dvc_links_outputs_to_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maskcast.registry.summary._is_champion", lambda name, number: False)
    write_results(tmp_path / "results", passed=True)
    (tmp_path / "results/evaluate.html").symlink_to(tmp_path / "cache/5bd3c830")  # dvc config cache.type symlink
    assert main(["summary"]) == 0
    assert f"report: {tmp_path / 'results/evaluate.html'}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("registration", "champion", "last"),
    [
        ({"passed": False, "champion": 1}, False, "maskcast models compare 1 3"),
        ({"passed": False, "champion": 1, "incomparable": "why"}, False, "maskcast register_models --help"),
        ({"passed": False}, False, "maskcast register_models --help"),
        ({"passed": True, "model": "toy", "versions": {"toy": 3}}, False, "maskcast models --name toy promote 3"),
        ({"passed": True}, True, "maskcast serve --model models:/maskcast@champion"),
        ({}, False, "maskcast models list"),
    ],
)
def test_the_last_command_depends_on_the_gate(
    registration: dict[str, Any], champion: bool, last: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskcast.registry.summary._is_champion", lambda name, number: champion)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    assert summary(write_results(tmp_path / "results", **registration)).endswith(f"\n  {last}")


@pytest.mark.parametrize("own", [True, False])
def test_the_sample_is_left_to_models_of_its_classes(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    results = write_results(tmp_path / "results", passed=True)
    classes = (
        ["background", "car"] if own else json.loads((SAMPLE_PIPELINE / "data/model.json").read_text())["classes"]
    )
    rows = "".join(f"{k},{name},9\n" for k, name in enumerate(classes))
    (results / "report").mkdir()
    (results / "report/per_class.csv").write_text(f"class_id,class,target_pixels\n{rows}")
    video = "VIDEO" if own else "sample"
    assert f"maskcast forecast {video} --model models:/maskcast/3\n" in summary(results)


def test_a_shell_without_the_environment_is_told_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    script = tmp_path / ".venv/bin/maskcast"
    script.parent.mkdir(parents=True)
    script.touch(0o755)
    other = tmp_path / "other/maskcast"
    other.parent.mkdir()
    other.touch(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{other.parent}")
    assert program_name() == "maskcast"  # also where nothing was activated
    monkeypatch.setenv("PATH", f"{other.parent}{os.pathsep}{script.parent}")
    monkeypatch.chdir(tmp_path)
    assert program_name() == os.path.join(".venv", "bin", "maskcast")
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path / "a b")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "the env/bin/python"))
    assert program_name() == f"'{tmp_path}/the env/bin/maskcast'"


@pytest.mark.parametrize("content", [None, "{", '{"clips": 3}'])
def test_results_without_scores_are_refused(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "evaluate.json").write_text(content)
    assert main(["summary", str(tmp_path)]) == 2
    assert "evaluate.json: " in capsys.readouterr().err


def test_a_run_that_forecasts_nothing_is_told_where_its_pages_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.html").touch()  # as the pipelines of detection and photographs leave it
    assert main(["summary", str(tmp_path)]) == 2
    assert f"{tmp_path}/index.html, the index of its pages" in capsys.readouterr().err


def test_scores_without_foreground_are_not_taken_for_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evaluate.json").write_text('{"clips": 3, "accuracy_last": 1.0}')
    assert main(["summary", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "evaluate.json: has no Jaccard, because no true mask has foreground; " in said and "dvc" not in said
