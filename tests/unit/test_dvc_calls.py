"""The stage calls of a dvc.yaml in the order in which they can run."""

from pathlib import Path

import pytest
import yaml

from maskcast.__main__ import main
from maskcast.errors import MaskcastError
from maskcast.runner.dvc_calls import hidden_stage, in_order, read_calls

PREPARE = "maskcast prepare_clips --params params.yaml --raw {raw} --clips data/clips"
TRAIN = "maskcast train_masker --params params.yaml --clips data/clips --masker models/masker"
GENERATE = "maskcast generate_masks --params params.yaml --clips data/clips --masker models/masker --masks {masks}"


def order(folder: Path, **commands: str | list[str]) -> list[str]:
    content = {"stages": {name: {"cmd": command} for name, command in commands.items()}}
    (folder / "dvc.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return in_order(read_calls(folder / "dvc.yaml")[0])


def test_an_entry_comes_after_those_whose_outputs_it_reads(tmp_path: Path) -> None:
    generate, prepare = GENERATE.format(masks="data/masks"), PREPARE.format(raw="data/raw")
    assert order(tmp_path, generate=generate, train=TRAIN, prepare=prepare) == ["prepare", "train", "generate"]


def test_only_the_entries_of_a_cycle_are_named(tmp_path: Path) -> None:
    generate, prepare = GENERATE.format(masks="data/raw"), PREPARE.format(raw="data/raw")
    report = "maskcast evaluate_video --params params.yaml --clips data/raw --report results/report"
    text = r"dvc.yaml: generate, prepare depend on each other; fix the paths"
    with pytest.raises(MaskcastError, match=text):
        order(
            tmp_path, report=report, generate=generate, train=TRAIN.replace("data/clips", "other"), prepare=prepare
        )


@pytest.mark.parametrize(
    "program",
    [
        ".venv/bin/maskcast",
        "python -m maskcast",
        "/usr/bin/python3.11 -m maskcast",
        "maskcast",
        "CUDA_VISIBLE_DEVICES=0 maskcast",
        "env X='a b' Y= nice -n 19 python -m maskcast",
    ],
)
def test_maskcast_is_called_by_a_path_or_as_a_module(program: str, tmp_path: Path) -> None:
    assert order(tmp_path, train=TRAIN.replace("maskcast", program, 1)) == ["train"]
    (call,) = read_calls(tmp_path / "dvc.yaml")[0].values()
    assert (call.stage.name, call.ports) == ("train_masker", {"clips": "data/clips", "masker": "models/masker"})


@pytest.mark.parametrize(
    "command",
    [f"cd x && {TRAIN}", f"bash -c '{TRAIN}'", f"${{python}} -m {TRAIN}", ["maskcast check-params", TRAIN]],
)
def test_a_stage_that_is_called_in_another_way_is_another_command(
    command: str | list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert order(tmp_path, train=command) == []
    assert read_calls(tmp_path / "dvc.yaml") == ({}, {"train": str(command)})
    assert main(["check-params", str(tmp_path)]) == 2
    line = f"error: {tmp_path}/dvc.yaml: train: `cmd` calls train_masker in a way that is not understood; "
    assert capsys.readouterr().err.startswith(line)


def test_a_command_that_only_speaks_of_a_stage_calls_none() -> None:
    assert hidden_stage("echo 'next: maskcast train_masker is run by hand'") is None
