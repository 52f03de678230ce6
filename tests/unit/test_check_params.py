"""`maskcast check-params`: mistakes in the params of any stage of a pipeline are told before one runs."""

import shutil
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
