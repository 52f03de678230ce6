"""`maskcast dry-run`: a small pipeline whose stages run, one that fails, and what is forecast."""

import json
from pathlib import Path

import pytest
import yaml

from maskcast.__main__ import main
from maskcast.diagnostics.cost import estimate_cost, scale_factor
from maskcast.diagnostics.dry_run_pipeline import dry_run
from maskcast.dry_run_notes import NOTES_FILE, first_of_each_part, is_dry_run, timed
from maskcast.errors import MaskcastError
from maskcast.runner.dvc_calls import read_calls
from maskcast.stages.generate_masks import GenerateMasks
from maskcast.stages.prepare_clips import PrepareClips

COMMANDS = {
    "fetch_dataset": "--raw data/raw",
    "prepare_clips": "--raw data/raw --clips data/clips",
    "train_masker": "--clips data/clips --masker models/masker --metrics results/train_masker.json",
    "predict": "--clips data/clips --masks data/masks --masker models/masker --forecaster f --predictions p",
    "generate_masks": "--clips data/clips --masker models/masker --masks data/masks --metrics results/masks.json",
}
TRAINING = {"epochs": 3, "steps_per_epoch": 50, "batch_size": 2, "learning_rate": 0.01, "checkpoint_every": 50}
PARAMS = {
    "fetch_dataset": {"uri": "synthetic"},
    "prepare_clips": {
        "source": {"layout": "synthetic", "train": 30, "val": 6, "unlabeled": 10, "frames": 3, "context": 2},
        "height": 32,
        "width": 48,
        "workers": 1,
    },
    "train_masker": {"model": {"arch": "unet", "width": 4}, "training": TRAINING},
    "predict": {},
    "generate_masks": {"maps": ["nothing"]},  # which the store does not have
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A pipeline of five stages, the last of which fails, and one before it in the file reads what that writes."""
    stages = {name: {"cmd": f"maskcast {name} --params params.yaml {ports}"} for name, ports in COMMANDS.items()}
    stages["plot"] = {"cmd": "python plot.py"}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


def test_stages_run_or_are_named_and_nothing_is_kept(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MLFLOW_RUN_ID", "of-somebody")  # is not joined
    assert main(["dry-run", str(pipeline)]) == 1
    said = capsys.readouterr()
    rows = {line.split()[0]: line.split() for line in said.out.splitlines() if line.strip()}
    assert rows["train_masker"][1] == "150"
    assert float(rows["train_masker"][2]) > 0
    assert float(rows["train_masker"][4]) > 0.1  # GiB: PyTorch alone
    assert rows["generate_masks"][-1] == "failed"
    assert rows["predict"][-2:] == ["not", "tried"]
    assert "; set maps to one of these" in said.err
    assert "predict: not tried: it needs generate_masks" in said.err
    assert "plot: not tried: not a stage of maskcast" in said.err
    assert "without generate_masks, predict, plot" in said.out
    assert sorted(path.name for path in pipeline.iterdir()) == ["dvc.yaml", "params.yaml"]


def test_what_is_often_done_counts_by_how_often() -> None:
    parts = {
        "train/labelled/frames": 40,
        "val/labelled/frames": 8,
        "train/labelled/masks": 400,
        "backgrounds/train": 9,
    }
    assert scale_factor(parts, None) == 48 / 8
    assert scale_factor(parts, "val") == 2
    assert scale_factor({}, None) == 1
    two = [{"begins": True}, {"loop": "masks", "seconds": [9.0]}, {"took": 10.0}]
    two += [{"begins": True}, {"loop": "masks", "seconds": [1.0, 2.0]}, {"took": 4.0}, {"memory": 5, "gpu": 0}]
    # 20 s in all: 8 s twice the last run, 12 s to start and to warm up, 1 s beside the loop, and the loop 6 times
    found = estimate_cost(two, 18.0, GenerateMasks(), parts)
    assert found.seconds == pytest.approx((18 - 2 * 4) + 1 + 6 * 3)
    assert (found.memory, found.step_s) == (5, None)
    two.insert(4, {"within": 0.5})  # of the 3 s of the loop: done once, whatever the number of clips
    assert estimate_cost(two, 18.0, GenerateMasks(), parts).seconds == pytest.approx((18 - 2 * 4) + 1.5 + 6 * 2.5)


def test_a_training_counts_its_steps_and_its_validations_by_their_clips() -> None:
    notes = [
        {"begins": True},
        {"loop": "warm-up", "spent": 5.0, "each": 0.0, "times": 0},
        {"loop": "steps", "spent": 2.0, "each": 0.5, "times": 100},
        {"loop": "validation", "spent": 1.0, "each": 1.0, "times": 3, "part": "val"},
        {"loop": "checkpoint", "spent": 0.5, "each": 0.5, "times": 4},
        {"took": 10.0},
        {"memory": 1},
    ]
    found = estimate_cost(notes, 12.0, None, {"val/labelled/frames": 8})
    assert found.seconds == pytest.approx(2 + 1.5 + 50 + 3 * 1.0 * 2 + 2)
    assert (found.step_s, found.steps) == (0.5, 100)


def test_what_a_training_does_beside_its_steps_counts_by_how_often() -> None:
    parts = {
        "train/labelled/frames": 30,
        "train/labelled/masks": 1500,
        "unlabeled/none/frames": 70,
        "val/x/frames": 9,
    }
    splits = ["train", "unlabeled"]
    notes = [
        {"begins": True},
        {"loop": "cutting", "seconds": [0.1, 0.3, 0.0], "items": 2, "most": 1200, "splits": splits},
        {"loop": "tracks", "seconds": [0.2, 0.2], "items": 2, "most": None, "splits": splits},
        {"loop": "completing", "seconds": [0.5, 0.5], "items": 2, "most": 1000, "splits": []},
        {"loop": "steps", "spent": 2.0, "each": 0.5, "times": 100},
        {"took": 10.0},
    ]
    once = 12 - 0.4 - 0.4 - 1 - 2
    assert estimate_cost(notes, 12.0, None, parts).seconds == pytest.approx(
        once + 0.2 * 1200 + 0.2 * 1600 + 500 + 50
    )
    few_clips = {"train/labelled/frames": 30}
    assert estimate_cost(notes, 12.0, None, few_clips).seconds == pytest.approx(once + 0.4 * 30 + 500 + 50)
    assert estimate_cost(notes, 12.0, None, {}).seconds == pytest.approx(once + 0.4 + 0.4 + 500 + 50)


def test_the_first_stage_counts_each_part_by_what_it_costs() -> None:
    parts = {"train": 10, "masks": 100}
    notes = [
        {"begins": True},
        {"parts": parts, "order": ["train", "train", "masks", "masks"]},
        {"loop": "clips", "seconds": [2.0, 4.0, 0.1, 0.3, 0.5]},
        {"took": 8.0},
    ]
    found = estimate_cost(notes, 9.0, PrepareClips(**PARAMS["prepare_clips"]), {})
    assert found.seconds == pytest.approx(1 + (8 - 6.9) + 3 * 10 + 0.2 * 100 + 0.5)
    assert found.parts == parts


def test_a_handful_is_taken_and_noted_in_a_dry_run_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NOTES_FILE, raising=False)
    items = [*range(10), *range(100, 102)]
    assert first_of_each_part(items, lambda item: "few" if item >= 100 else "many") == items
    assert not is_dry_run()
    monkeypatch.setenv(NOTES_FILE, str(tmp_path / "notes"))
    assert first_of_each_part(items, lambda item: "few" if item >= 100 else "many") == [0, 1, 2, 3, 100, 101]
    assert next(iter(timed([7, 8], "half"))) == 7
    assert list(timed([7, 8], "all")) == [7, 8]
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert notes[0] == {"parts": {"many": 10, "few": 2}, "order": ["many"] * 4 + ["few"] * 2}
    assert {one["loop"]: len(one["seconds"]) >= 1 for one in notes[1:]} == {"half": True, "all": True}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such dvc.yaml"),
        ("stages: 3", "not a dvc.yaml"),
        ("stages: {a: {}}", "not a dvc.yaml"),
        ("stages: {a: {cmd: maskcast predict}}", "a: `maskcast predict` needs --params FILE"),
        ("stages: {a: {cmd: 'maskcast predict --params ${file}'}}", "write one command"),
        ("stages: {a: {cmd: python x.py}}", "contains no stage of maskcast"),
    ],
)
def test_what_is_no_pipeline_is_refused(content: str | None, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "dvc.yaml").write_text(content)
    with pytest.raises(MaskcastError, match=r"dvc\.yaml: ") as error:
        list(dry_run(tmp_path))
    assert said in str(error.value)


def test_wrong_params_end_it_before_anything_is_tried(pipeline: Path) -> None:
    params = PARAMS | {"train_masker": {"model": {"arch": "unet"}, "training": TRAINING | {"epoch": 1}}}
    (pipeline / "params.yaml").write_text(yaml.safe_dump(params))
    with pytest.raises(MaskcastError, match=r"train_masker\.training\.epoch: unknown key"):
        list(dry_run(pipeline))


def test_stages_that_wait_for_each_other_are_named(pipeline: Path) -> None:
    calls, others = read_calls(pipeline / "dvc.yaml")
    assert (list(calls), list(others)) == (list(COMMANDS), ["plot"])
    text = (pipeline / "dvc.yaml").read_text()
    (pipeline / "dvc.yaml").write_text(text.replace("--raw data/raw --clips", "--raw data/masks --clips"))
    with pytest.raises(
        MaskcastError, match=r"dvc\.yaml: generate_masks, prepare_clips, train_masker depend on each"
    ):
        next(dry_run(pipeline))  # before any trial
