"""`maskcast check-params`: mistakes in the params of any stage of a pipeline are told before one runs."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.conftest import ROOT

from maskcast.__main__ import main


@pytest.fixture(autouse=True)
def _in_a_pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)


def test_every_section_that_is_wrong_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["train_masker"]["training"]["epochs"] = "many"
    params |= {"evaluate": {"split": "vla"}, "ours": {"anything": 1}}
    del params["register_models"]
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert main(["check-params"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines.pop(0) == (
        "warning: params.yaml: no stage of the pipeline reads section 'ours'; remove it if unused"
    )
    assert [line.split(": ")[:2] for line in lines] == [["error", "params.yaml"]] * 3
    for line, part in zip(lines, ("train_masker.training.epochs: ", "evaluate.split: ", "section "), strict=True):
        assert line.removeprefix("error: params.yaml: ").startswith(part)
    assert "did you mean 'val'?" in lines[1]


def test_valid_params_are_passed_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-params"]) == 0
    assert main(["check-params", str(ROOT / "recipes/hands")]) == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_file_that_is_missing_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").unlink()
    assert main(["check-params"]) == 2
    remedy = "write it (maskcast init does), or fix --params in dvc.yaml"
    assert capsys.readouterr().err == f"error: params.yaml: no such params file; {remedy}\n"
    Path("dvc.yaml").unlink()
    assert main(["check-params"]) == 2
    assert capsys.readouterr().err.startswith("error: dvc.yaml: no such dvc.yaml; ")


def test_sections_that_do_not_fit_each_other_have_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["pretrain_encoder"] |= {"model": {"arch": "unet", "width": 8}, "method": {"name": "moco"}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert main(["check-params"]) == 2
    message = (
        "params.yaml: pretrain_encoder.model is {arch: unet, width: 8}, but train_masker.model needs "
        "{arch: unet, width: 16}; make them equal"
    )
    assert capsys.readouterr().err == f"error: {message}\n"
    assert main(["pipeline", "compile", "--params", "params.yaml", "--out", "pipeline.yaml"]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not Path("pipeline.yaml").exists()


def change(**sections: dict[str, object]) -> None:
    """Adds keys to sections of params.yaml, which need not exist."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    for name, keys in sections.items():
        params[name] = (params.get(name) or {}) | keys
    Path("params.yaml").write_text(yaml.safe_dump(params))


def test_a_context_that_masks_look_beyond_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    change(evaluate={"context_frames": 3, "horizon": 5})
    for command in (["check-params"], ["pipeline", "compile", "--out", "pipeline.yaml"]):
        assert main(command) == 2
        assert capsys.readouterr().err.splitlines()[-1] == (
            "error: params.yaml: generate_masks has consistent_frames 11, so masks of the 3 context frames of "
            "evaluate depend on later frames; set generate_masks.consistent_frames to 3 or null"
        )


def test_windows_that_differ_are_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    change(predict={"horizon": 5})
    line = (
        "warning: params.yaml: horizon is 11 in pretrain_forecaster, finetune_forecaster, evaluate; 5 in predict; "
        "make it equal unless this is meant (docs/forecasting.md#other-windows)"
    )
    assert main(["check-params"]) == 0
    assert capsys.readouterr().err == f"{line}\n"
    assert main(["pipeline", "compile", "--out", "pipeline.yaml"]) == 0
    assert line in capsys.readouterr().err.splitlines()


def test_a_mistyped_section_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    change(register_model={"gate": {"margin": 0.5}})
    found = "no stage reads section 'register_model'; did you mean 'register_models'? else remove it"
    for command in (["check-params"], ["pipeline", "compile", "--out", "pipeline.yaml"]):
        assert main(command) == 2
        assert capsys.readouterr().err == f"error: params.yaml: {found}\n"


def test_sections_of_other_pipelines_and_commands_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    dvc = yaml.safe_load(Path("dvc.yaml").read_text())
    commands: dict[str, object] = {
        "ours": {"cmd": "python ours.py", "params": ["train_maskers.rate", {"other.yaml": ["evaluates"]}]},
        "another": {"cmd": "echo ${predicts.x}"},
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": dvc["stages"] | commands}))
    subprocess.run(["git", "init", "--quiet"], check=True)
    Path("second").mkdir()
    entry = {"cmd": "x ${item}", "wdir": "..", "params": [{"params.yaml": ["generate_masks_2"]}]}
    second = {"second_masks": {"foreach": ["a"], "do": entry}}
    Path("second/dvc.yaml").write_text(yaml.safe_dump({"stages": second}))
    change(train_maskers={"rate": 1}, predicts={"x": 1}, generate_masks_2={})
    for command in (["check-params"], ["pipeline", "compile", "--out", "pipeline.yaml"]):
        assert main(command) == 0
        assert "section" not in capsys.readouterr().err
    change(evaluates={})
    assert main(["check-params"]) == 2
    assert "no stage reads section 'evaluates'; did you mean 'evaluate'?" in capsys.readouterr().err


def test_sections_of_several_kubeflow_pipelines_share_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    sections = yaml.safe_load((ROOT / "recipes/video/params.yaml").read_text())
    change(**{name: sections[name] for name in ("base_masks", "evaluate_video", "train_segmenter")})
    assert main(["pipeline", "compile", "--out", "pipeline.yaml"]) == 0
    assert "section" not in capsys.readouterr().err
    assert main(["check-params"]) == 0  # its dvc.yaml names none; evaluate_video is a stage
    assert [line.split("section ")[1].split(";")[0] for line in capsys.readouterr().err.splitlines()] == [
        "'base_masks'",
        "'train_segmenter'",
    ]


def test_a_pipeline_without_a_stage_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    Path("dvc.yaml").write_text("stages: {train: {cmd: python train.py}}")
    assert main(["check-params"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: dvc.yaml: has no stage whose `cmd` is `maskcast STAGE ...`; "
    )
