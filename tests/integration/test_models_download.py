"""Training goes on from a registered model: downloaded, versioned by DVC, and given to the stages as folders."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from tests.conftest import write_store
from tests.integration.workshop import NO_BASELINE, Workshop, command

from maskcast.__main__ import main
from maskcast.digest import digest_tree
from maskcast.models.segmentation.table import load_masker
from maskcast.registry.store import Registry
from maskcast.stages.evaluate import Evaluate, evaluate
from maskcast.stages.finetune_forecaster import FinetuneForecaster, finetune_forecaster
from maskcast.stages.register_models import RegisterModels, register_models

TRAINING = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 1e-3}
PARAMS = {"train_masker": {"model": {"arch": "unet", "width": 4}, "training": TRAINING}}
REGISTER = RegisterModels.model_validate({"gate": NO_BASELINE})


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture
def inputs(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The parts of the champion in the registry of the working directory, and what they were registered with."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    inputs = workshop.forecaster(1)
    register_models(**inputs, registration=Path("registration.json"), params=REGISTER)
    assert main(["models", "promote"]) == 0
    return inputs


def test_a_training_goes_on_from_the_champion(
    inputs: dict[str, Path], tmp_path: Path, programs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = command(capsys, "download", "champion", "--output", "start")
    assert said == (0, "maskcast version 1: start/masker, start/forecaster\n")
    registered = Registry("maskcast").find("1")
    assert sorted(path.name for path in Path("start").iterdir()) == ["forecaster", "masker", "registered.json"]
    record = json.loads(Path("start/registered.json").read_text())
    assert record == {"name": "maskcast", "version": 1, "digest": registered.digest}
    for part in ("masker", "forecaster"):  # the same for stages that compare digests
        assert digest_tree(Path("start", part)) == digest_tree(inputs[part])

    # as in docs/registry.md
    write_store(tmp_path / "clips", train=2, val=1)
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    stage = {
        "cmd": f"{programs}/maskcast train_masker --params params.yaml --clips clips "
        "--start start/masker --masker models/masker --metrics results/train_masker.json",
        "params": ["train_masker"],
        "deps": ["start/masker"],
        "outs": ["models/masker"],
        "metrics": ["results/train_masker.json"],
    }
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": {"train_masker": stage}}))
    for words in (["init", "--no-scm"], ["add", "start"], ["repro"]):
        subprocess.run([programs / "dvc", *words, "-q"], check=True)
    (curve,) = json.loads(Path("models/masker/learning.json").read_text()).values()
    assert curve[0]["epoch"] == 0  # the champion, validated
    lock = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["train_masker"]
    assert [each["path"] for each in lock["deps"]] == ["start/masker"]
    assert load_masker(Path("models/masker"))[0].maps == load_masker(inputs["masker"])[0].maps

    finetune_forecaster(
        clips=Path("clips"),
        masks=Path("clips"),
        masker=Path("start/masker"),
        pretrained=Path("start/forecaster"),
        forecaster=Path("forecaster"),
        metrics=Path("finetune_forecaster.json"),
        params=FinetuneForecaster.model_validate({"training": TRAINING}),
    )
    parts = {"masker": Path("models/masker"), "forecaster": Path("forecaster")}
    out = {"metrics": Path("metrics.json"), "report": Path("report")}
    evaluate(
        clips=Path("clips"), masks=Path("clips"), **parts, **out, params=Evaluate(context="truth", pictures=0)
    )
    register_models(
        clips=Path("clips"), **parts, report=out["report"], registration=Path("registration.json"), params=REGISTER
    )
    code, said = command(capsys, "lineage", "2")
    assert code == 0
    assert re.search(r"^  input start: \w+, maskcast version 1$", said, re.MULTILINE)


@pytest.mark.usefixtures("inputs")
def test_a_download_is_whole_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(capsys, "--name", "maskcast-forecaster", "download", "1", "--output", "part") == (
        0,
        "maskcast-forecaster version 1: part/forecaster\n",
    )
    code, said = command(capsys, "download", "1", "--output", "part")
    assert (code, said) == (2, "error: part: already exists (--output); choose a new folder, or remove this one\n")
    code, said = command(capsys, "download", "7", "--output", "start")
    assert (code, "version or alias '7' not found" in said) == (2, True)
    for weights in Path("mlartifacts").rglob("masker/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    code, said = command(capsys, "download", "1", "--output", "start")
    assert (code, said.count("\n"), "differs from what was registered" in said) == (2, 1, True)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("start")]
