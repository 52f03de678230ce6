"""From a detector that was trained to its rollback: registered, compared image by image, promoted, refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
from tests.conftest import SMALL_DETECTOR, write_detection_set
from tests.known import know_own_boxes

from maskcast.__main__ import main
from maskcast.data.detection.dataset import DetectionSet
from maskcast.errors import MaskcastError
from maskcast.models.base import best_device, save_model
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.registry.store import Registry
from maskcast.runner.mlflow_uri import tracking_uri
from maskcast.runner.run import run_stage

Run = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)


@dataclass(frozen=True)
class Shop:
    """Where detectors are made, spoilt and evaluated."""

    folder: Path

    @property
    def dataset(self) -> Path:
        """Painted rectangles."""
        return self.folder / "dataset"

    def evaluated(self, name: str, split: str = "train") -> dict[str, Path]:
        """Returns the inputs of register_detector."""
        inputs = {"dataset": self.dataset, "detector": self.folder / name}
        report = self.folder / f"{name}-{split}"
        if not report.exists():
            params = {"split": split, "precision": "fp32", "batch_size": 1, "pictures": 0}
            out = {"metrics": self.folder / "metrics.json", "report": report}
            run_stage("evaluate_detector", params, **inputs, **out)
        return inputs | {"report": report}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A detector whose boxes are the truth of `train`, `good`, and its copy that takes red for blue, `worse`."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("shop")
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        write_detection_set(folder / "dataset", train=8, val=2)
        torch.manual_seed(2)
        config = FasterRcnnConfig(**SMALL_DETECTOR)
        detector = know_own_boxes(config.build(2), folder / "dataset", "train")
        meta = {"classes": ["red", "blue"], "original_ids": [7, 3]}
        save_model(folder / "good", detector, config, num_classes=2, meta=meta)
        weights = detector.state_dict()
        for key in [key for key in weights if "box_predictor.cls_score" in key]:
            weights[key] = weights[key][[0, 2, 1]]
        detector.load_state_dict(weights)
        save_model(folder / "worse", detector, config, num_classes=2, meta=meta)
        shop = Shop(folder)
        for name, split in (("good", "train"), ("worse", "train"), ("worse", "val")):
            shop.evaluated(name, split)
        return shop


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs register_detector in a registry of its own, and returns what it wrote."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)

    def register(inputs: dict[str, Path], **params: Any) -> dict[str, Any]:
        out = {"registration": tmp_path / "registration.json", "page": tmp_path / "page.html"}
        run_stage("register_detector", params, **inputs, **out)
        return json.loads(out["registration"].read_text())

    return register


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["models", "--name", "maskcast-detector", *words])
    out, err = capsys.readouterr()
    return code, out + err


def test_from_the_first_registration_to_the_rollback(
    shop: Shop, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, worse = shop.evaluated("good"), shop.evaluated("worse")
    registry = Registry("maskcast-detector", creates=True)
    first = run(good, gate={"least": {"AP50": 0.5}})
    assert (first["versions"], first["passed"], first["champion"]) == ({"maskcast-detector": 1}, True, None)
    said = capsys.readouterr().err
    assert "gate: maskcast-detector version 1 passed: AP50 1." in said
    assert f"warning: {good['report']}: scores of split train, the training data of the model" in said
    assert run(good, gate={"least": {"AP50": 0.5}}) == first
    assert (
        "these detector weights are already registered as maskcast-detector version 1" in capsys.readouterr().err
    )
    assert [version.number for version in registry.versions()] == [1]
    tags = registry.find("candidate").tags
    scores = json.loads((good["report"] / "evaluation.json").read_text())["scores"]
    assert tags["maskcast.score.AP"] == f"{scores['AP']:.6f}"
    assert tags["maskcast.data"] == DetectionSet(shop.dataset).split("train").digest()

    # What MLflow loads finds what was evaluated.
    mlflow.set_tracking_uri(tracking_uri())
    model = mlflow.pyfunc.load_model("models:/maskcast-detector@candidate")
    output = model.metadata.signature.outputs.to_dict()[0]["tensor-spec"]
    assert output == {"dtype": "float32", "shape": (-1, 100, 6)}
    assert model.predict(model.input_example.astype(np.uint8)).shape == (1, 100, 6)
    split = DetectionSet(shop.dataset).split("train")
    (rows,) = model.predict(split.image(0)[None])
    wanted = [
        one
        for one in json.loads((good["report"] / "detections.json").read_text())
        if one["image_id"] == split.ids[0]
    ]
    rows = rows[rows[:, 4] > 0]
    assert len(rows) == len(wanted) > 0
    np.testing.assert_allclose(rows[:, 4], [one["score"] for one in wanted], rtol=1e-6)
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in wanted)]
    np.testing.assert_allclose(rows[:, :4], boxes, rtol=1e-5)
    assert [(7, 3)[int(k)] for k in rows[:, 5]] == [one["category_id"] for one in wanted]
    folder = Path(mlflow.artifacts.download_artifacts("models:/maskcast-detector/1", dst_path=str(tmp_path / "m")))
    assert {path.name for path in (folder / "data/detector").iterdir()} == {"config.json", "model.safetensors"}
    card = (folder / "README.md").read_text()
    assert f"| {scores['AP']:.4f} |" in card
    assert '2 classes by id: {"0": "red", "1": "blue"}' in card

    assert command(capsys, "promote")[0] == 0
    failed = run(worse)
    assert (failed["passed"], failed["champion"], failed["versions"]) == (False, 1, {"maskcast-detector": 2})
    assert failed["difference"]["low"] < -0.01
    assert (failed["difference"]["count"], failed["difference"]["of"]) == (6, "image")  # of 8, two without boxes
    assert registry.aliases() == {"champion": 1}
    page = (tmp_path / "page.html").read_text()
    assert "Images that differ most in AP, worst for this model first" in page
    assert "Forecast quality" not in page
    code, said = command(capsys, "promote", "2")
    assert (code, "version 2 did not pass the gate; run register_detector again, or" in said) == (2, True)
    code, said = command(capsys, "compare", "1", "2")
    assert (code, "means over images, and B minus A" in said) == (0, True)
    assert f"{failed['difference']['mean']:+.4f} [" in said
    assert command(capsys, "promote", "2", "--force", "--reason", "a demo")[0] == 0
    assert command(capsys, "rollback")[0] == 0
    assert registry.aliases() == {"champion": 1, "previous": 2}
    code, said = command(capsys, "list")
    assert (code, "AP50" in said, "jaccard" in said, "a demo" in said) == (0, True, False, True)
    code, said = command(capsys, "lineage", "1")
    for text in ("register_detector: run ", "clips or images that were scored: " + tags["maskcast.data"]):
        assert (code, text in said, "unknown" in said.partition("register_detector: run")[0]) == (0, True, False)

    other = run(shop.evaluated("worse", "val"))
    assert (other["passed"], other["champion"], other["elsewhere"]) == (False, 1, 1)
    assert "Not comparable with version 1: scored on other images." in (tmp_path / "page.html").read_text()
    code, said = command(capsys, "compare", "1", "2")
    assert (code, "evaluate and register both on the same images" in said) == (2, True)


def test_what_a_detector_cannot_do_is_said_in_one_line(
    shop: Shop, run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("good", "worse"):
        run(shop.evaluated(name))
    alone = "is a detector, which does not forecast; give a pipeline, e.g. models:/maskcast@champion"
    refusals = {
        ("lineage", "1", "--verify"): "is not a pipeline, and only these can be verified; run evaluate_detector",
        ("export", "1", "--format", "torch-export", "--output", "graph"): alone,
        ("compare", "1", "2", "--pictures", "drawn"): alone,
    }
    for words, message in refusals.items():
        code, said = command(capsys, *words)
        assert (code, said.splitlines()[-1].startswith("error: "), message in said.splitlines()[-1]) == (
            2,
            True,
            True,
        )
    for words in (["forecast", "street.mp4", "--output", "out"], ["serve"]):
        capsys.readouterr()
        assert main([*words, "--model", "models:/maskcast-detector/1"]) == 2
        assert alone in capsys.readouterr().err
    assert not [path for path in tmp_path.iterdir() if path.name in ("graph", "drawn", "out")]


def test_another_report_is_refused(shop: Shop, run: Run, tmp_path: Path) -> None:
    good = shop.evaluated("good")
    with pytest.raises(
        MaskcastError, match=r"has scores of another detector, not of .*; run evaluate_detector on it"
    ):
        run(good | {"detector": shop.folder / "worse"})
    with pytest.raises(MaskcastError, match=r"gate\.least: 'jaccard_last' is not a score .*allowed: AP, "):
        run(good, gate={"least": {"jaccard_last": 0.5}})
    with pytest.raises(MaskcastError, match=r"gate\.least: 'AP_large' was not measured; scores: AP, "):
        run(good, gate={"least": {"AP_large": 0.5}})
    with pytest.raises(MaskcastError, match=r"gate\.score: input should be 'AP' or 'f1', got 'jaccard_mean'"):
        run(good, gate={"score": "jaccard_mean"})
    shutil.copytree(good["report"], tmp_path / "report")
    facts = json.loads((tmp_path / "report/evaluation.json").read_text())
    assert facts["arithmetic"] == f"fp32 on {best_device().type}"
    for changed, message in (
        (
            facts | {"format": "maskcast-evaluation/1"},
            "not a maskcast-detection-evaluation/1 with scores of images",
        ),
        ([], "evaluation.json: not an evaluation .*; give the report of evaluate_detector"),
    ):
        (tmp_path / "report/evaluation.json").write_text(json.dumps(changed))
        with pytest.raises(MaskcastError, match=message):
            run(good | {"report": tmp_path / "report"})
    assert not (tmp_path / "registration.json").exists()
    assert Registry("maskcast-detector").versions() == []
