"""What `models lineage --verify` refuses, and what it says of scores that differ; the tutorial's test verifies."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mlflow.entities import DatasetInput, InputTag
from tests.conftest import write_store
from tests.integration.workshop import Workshop
from tests.two_maps import MATTE, SQUARES, write_two_maps

from maskcast import __version__
from maskcast.__main__ import main
from maskcast.evaluation.record import FORECASTS
from maskcast.models.base import save_model
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.params import flatten
from maskcast.registry.evaluations import EvaluationRecord, read_evaluation
from maskcast.registry.store import Registry
from maskcast.registry.verify import Verification, _evaluate, _mask_params, _params
from maskcast.runner.mlflow_run import DVC
from maskcast.runner.provenance import OUTPUTS
from maskcast.stages.evaluate import Evaluate, evaluate
from maskcast.stages.generate_masks import GenerateMasks, generate_masks
from maskcast.stages.register_models import RegisterModels, register_models

STAGE = """\
import os
from dvc.analytics import is_enabled
quiet = os.environ.get("MLFLOW_DISABLE_TELEMETRY")
raise SystemExit(f"MLflow is kept from reports: {quiet}, DVC: {not is_enabled()}")
"""


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repositories(tmp_path: Path) -> dict[str, Path]:
    """Two repositories with a commit each, of a maskcast whose stages say what they may report, and fail."""
    folders = {name: tmp_path / name for name in ("ours", "others")}
    for name, folder in folders.items():
        (folder / "src/maskcast").mkdir(parents=True)
        (folder / "src/maskcast/__init__.py").touch()
        (folder / "src/maskcast/__main__.py").write_text(STAGE)
        git(folder, "init", "--quiet")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", name)
    return folders


def evaluated_by_run(dvc_hash: str | None) -> str:
    """Adds the run of evaluate for version 1, with or without DVC's hash of its clips; returns its id."""
    registry = Registry("maskcast")
    registration = registry.client.get_run(registry.evaluation_run(registry.find("1")))
    inputs = {each.dataset.name: each.dataset for each in registration.inputs.dataset_inputs}
    tags = {"maskcast.stage": "evaluate", OUTPUTS: json.dumps({"report": inputs["report"].digest})}
    run = registry.client.create_run(registration.info.experiment_id, tags=tags)
    hashes = [InputTag(DVC, dvc_hash)] if dvc_hash else []
    registry.client.log_inputs(run.info.run_id, [DatasetInput(inputs["clips"], hashes)])
    registry.client.set_terminated(run.info.run_id)
    return str(run.info.run_id)


def test_what_cannot_be_verified_is_said_in_one_line(
    repositories: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("MLFLOW_TRACKING_URI", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    workshop = Workshop(tmp_path / "workshop")
    commit = git(repositories["ours"], "rev-parse", "HEAD").strip()
    git(repositories["ours"], "rm", "--quiet", "-r", "src")
    git(repositories["ours"], "commit", "--quiet", "--message", "nothing")
    empty = git(repositories["ours"], "rev-parse", "HEAD").strip()
    for seed, sha in enumerate((commit, f"{commit}-dirty", empty)):
        monkeypatch.setenv("MASKCAST_GIT_SHA", sha)
        inputs = workshop.forecaster(seed)
        register_models(**inputs, registration=tmp_path / "registration.json", params=RegisterModels())
    monkeypatch.delenv("MASKCAST_GIT_SHA")
    other = write_store(tmp_path / "other", val=1).root
    ours, others = (f"--repository={repositories[name]}" for name in ("ours", "others"))
    refusals = {
        (
            "2",
            ours,
        ): f"version 2: was evaluated with code that is not committed ({commit}-dirty); commit, evaluate and",
        ("1", others): f"commit {commit} cannot be checked out; give a clone or URL",
        ("1", f"--repository={tmp_path / 'nowhere'}"): "cannot be checked out; give a clone or URL",
        ("1", f"--repository={tmp_path}"): "not a Git repository; give --repository",
        (
            "1",
            ours,
        ): f"the run of evaluate is not on sqlite:///{tmp_path}/mlflow.db, so DVC's hash of its clips is not",
        ("1", ours, f"--clips={other}"): "not the clips that maskcast version 1 was evaluated on",
        ("1", ours, f"--clips={inputs['clips']}"): "evaluate of that commit failed (MLflow is kept "
        "from reports: true, DVC: True)",
        (
            "3",
            ours,
        ): f"version 3: commit {empty} has no src/maskcast; give a --repository that has it, or install "
        f"the maskcast that evaluated it ({__version__}, commit {empty}; installed is {__version__}",
        ("4", ours): "version or alias '4' not found",
    }
    for words, message in refusals.items():
        capsys.readouterr()
        assert main(["models", "lineage", *words, "--verify"]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert message in errors[0]
    hashes = {None: "was not made by `dvc repro`, so DVC has no hash", "0" * 32: f"clips {'0' * 32}: not found in"}
    for dvc_hash, message in hashes.items():  # of evaluate's own run, where others registered by hand
        run_id = evaluated_by_run(dvc_hash)
        assert main(["models", "lineage", "1", ours, "--verify"]) == 2
        assert message in capsys.readouterr().err
        Registry("maskcast").client.delete_run(run_id)
    assert main(["models", "--name", "maskcast-masker", "lineage", "1", "--verify"]) == 2
    assert "version 1: is part of a pipeline; verify the pipeline" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))  # as in an image
    assert main(["models", "lineage", "1", ours, "--verify"]) == 2
    assert "error: git: not installed, but needed by --verify; install it\n" in capsys.readouterr().err


def test_scores_that_differ_are_named() -> None:
    equal = Verification("it", {"jaccard_mean": 0.5, "x": 1.0}, {"jaccard_mean": 0.5, "x": 1.0}, True)
    assert equal.equal
    assert "equal: all 2 scores, and those of each clip" in str(equal)
    for other, clips_equal in (({"jaccard_mean": 0.5, "x": 1.25}, True), ({"jaccard_mean": 0.5}, True)):
        differing = Verification("it", equal.registered, other, clips_equal)
        assert not differing.equal
        assert differing.differing == ["x"]
        assert "not equal: 1 of 2 scores" in str(differing)
    assert "by at most 0.25" in str(Verification("it", equal.registered, {"jaccard_mean": 0.5, "x": 1.25}, True))
    assert not Verification("it", equal.registered, equal.registered, False).equal


@pytest.mark.parametrize(
    "values", [{}, {"consistent_frames": 11, "maps": ["mask"]}, {"propagated": {"frames": 4}, "precision": "fp32"}]
)
def test_params_of_masks_are_read_from_their_run(values: dict[str, Any]) -> None:
    params, record = GenerateMasks.model_validate(values), EvaluationRecord("", FORECASTS, {}, {}, {}, {})
    texts = {name: str(value) for name, value in flatten(params.model_dump(mode="json")).items()}
    run = SimpleNamespace(data=SimpleNamespace(tags={"maskcast.stage": "generate_masks"}, params=texts))
    assert GenerateMasks.model_validate(_mask_params([run], record)) == params


def test_an_evaluation_runs_again_with_all_its_params(tmp_path: Path) -> None:
    clips, bundle = write_two_maps(tmp_path / "clips").root, tmp_path / "bundle"
    torch.manual_seed(0)
    unet, convlstm = UNetConfig(width=2), ConvLSTMConfig(hidden=4, stride=4)
    save_masker(bundle / "masker", unet.build([SQUARES, MATTE]), unet, {})
    meta = {"label_map": "squares", "context_frames": 4, "horizon": 3}
    save_model(bundle / "forecaster", convlstm.build(3), convlstm, num_classes=3, meta=meta)
    made = {name: tmp_path / name for name in ("masks", "report")}
    metrics = {"metrics": tmp_path / "metrics.json"}
    models = {"masker": bundle / "masker", "forecaster": bundle / "forecaster"}
    of_masks = GenerateMasks(consistent_frames=4, precision="fp32", maps=("squares",), batch_size=3)
    generate_masks(clips=clips, masker=models["masker"], masks=made["masks"], **metrics, params=of_masks)
    params = Evaluate(label_map="squares", context_frames=4, horizon=3, futures=2, pictures=1, split="val")
    evaluate(clips=clips, **made, **models, **metrics, params=params)
    record = read_evaluation(made["report"])
    recorded = _params([], record)
    assert GenerateMasks.model_validate(recorded["generate_masks"]) == of_masks
    assert Evaluate.model_validate(recorded["evaluate"]) == params.model_copy(update={"pictures": 0})
    again = _evaluate(tmp_path, clips, bundle, recorded)
    assert again.digest == record.digest
    for name, score in record.scores.items():
        assert again.scores[name] == score or name.startswith(("seconds", "peak")), name
    before = {name: value for name, value in record.facts.items() if name != "params"}  # as once recorded
    older = _params([], EvaluationRecord("", record.measure, before, {}, {}, {}))
    assert Evaluate.model_validate(older["evaluate"]) == params.model_copy(update={"futures": 0, "pictures": 0})
    assert older["generate_masks"] == {"precision": "fp32", "consistent_frames": 4}
