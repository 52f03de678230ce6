"""evaluate_detector: a detector with known answers is scored and reported; its detections are scored again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.conftest import write_detection_set
from torch import Tensor

from maskcast.commands.evaluate_coco import evaluate_files
from maskcast.data.detection.dataset import DetectionSet
from maskcast.errors import MaskcastError
from maskcast.models.base import save_model
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.models.detection.faster_rcnn import FasterRcnn
from maskcast.registry.evaluations import DETECTIONS, read_evaluation
from maskcast.runner.run import run_stage
from maskcast.stages.evaluate_detector import EvaluateDetector, evaluate_detector

SMALL = FasterRcnnConfig(
    version=1,
    encoder="tu-test_resnet",
    width=16,
    min_size=48,
    max_size=80,
    anchor_sizes=(8, 16, 24, 32, 48),
    proposals=40,
    rois=16,
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detection_set(tmp_path_factory.mktemp("data") / "set", train=2, val=5)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "detector"
    torch.manual_seed(0)
    meta = {"classes": ["red", "blue"], "original_ids": [7, 3]}
    save_model(folder, SMALL.build(2), SMALL, num_classes=2, meta=meta)
    return folder


def outputs(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    return {"metrics": folder / "metrics.json", "report": folder / "report"}


def read_colours(_: FasterRcnn, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Finds painted rectangles by their colour: a detector that knows the answer."""
    found = []
    for image in images:
        boxes, labels = [], []
        for label, (strong, weak) in enumerate(((0, 2), (2, 0))):
            painted = image[..., strong].int() - image[..., weak].int() > 100
            columns = np.flatnonzero(painted.any(0).numpy())
            for part in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1) if len(columns) else []:
                rows = np.flatnonzero(painted[:, part].any(1).numpy())
                boxes.append([part[0], rows[0], part[-1] + 1, rows[-1] + 1])
                labels.append(label)
        box = torch.tensor(np.array(boxes, np.float32).reshape(-1, 4))
        found.append(
            {"boxes": box, "labels": torch.tensor(labels, dtype=torch.int64), "scores": torch.ones(len(box))}
        )
    return found


def test_a_detector_that_knows_the_answer_scores_one(
    dataset: Path,
    detector: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(FasterRcnn, "forward", read_colours)
    out = outputs(tmp_path / "out")
    evaluate_detector(dataset=dataset, detector=detector, params=EvaluateDetector(batch_size=2, pictures=2), **out)
    metrics = json.loads(out["metrics"].read_text())
    assert metrics["AP"] == metrics["AP50"] == pytest.approx(1)
    assert metrics["images"] == 5
    assert (
        "Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000" in capsys.readouterr().err
    )
    written = {path.name for path in out["report"].iterdir()}
    assert written >= {"detections.json", "per_category.csv", "precision_recall.csv", "pictures.png", "README.md"}
    record = read_evaluation(out["report"], (DETECTIONS,))
    record.check_models(detector=detector)
    assert record.scores == metrics
    assert record.facts["split"] == "val" and record.facts["precision"] == "bf16"
    ids = ["10", "11", "12", "13", "14"]
    assert record.per_item["AP"] == dict.fromkeys([*ids[:3], ids[4]], pytest.approx(1))  # 13 has no boxes
    assert record.per_item["f1"] == dict.fromkeys(ids, 1)


def test_the_digest_of_a_split_names_classes_boxes_and_images_alone(tmp_path: Path) -> None:
    first = write_detection_set(tmp_path / "first", train=2, val=5)
    second = write_detection_set(tmp_path / "second", train=3, val=5, unlabeled=1)
    other_boxes = write_detection_set(tmp_path / "third", train=2, val=5, boxes=1)
    found = [DetectionSet(root).split("val").digest() for root in (first, second, other_boxes)]
    assert found[0] == found[1] != found[2]
    (second / "images/val/0.png").write_bytes((first / "images/val/1.png").read_bytes())
    assert DetectionSet(second).split("val").digest() != found[0]
    (second / "images/val/0.png").unlink()
    with pytest.raises(MaskcastError, match=r"0\.png: cannot be read .*; prepare the set again"):
        DetectionSet(second).split("val").digest()


def test_detections_carry_the_ids_of_the_source(
    dataset: Path, detector: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FasterRcnn, "forward", read_colours)
    out = outputs(tmp_path / "out")
    evaluate_detector(dataset=dataset, detector=detector, params=EvaluateDetector(pictures=0), **out)
    truth = json.loads((dataset / "val.json").read_text())
    original = dict(enumerate(DetectionSet(dataset).original_ids))
    for one in truth["annotations"] + truth["categories"]:
        key = "category_id" if "category_id" in one else "id"
        one[key] = original[one[key]]
    (tmp_path / "source.json").write_text(json.dumps(truth))
    scores = evaluate_files(tmp_path / "source.json", out["report"] / "detections.json", "bbox")
    assert scores.summary["AP"] == pytest.approx(1)
    assert {one["category_id"] for one in scores.detections} == {7, 3}


def test_the_real_network_runs_end_to_end_and_twice_the_same(
    dataset: Path, detector: Path, tmp_path: Path
) -> None:
    found = []
    for name in ("first", "second"):
        out = outputs(tmp_path / name)
        values = {"split": "train", "precision": "fp32", "pictures": 1}
        scores = run_stage("evaluate_detector", values, dataset=dataset, detector=detector, **out)
        assert 0 <= scores["AP50"] <= 1 and scores["images"] == 2
        found.append((out["report"] / "detections.json").read_bytes())
    assert found[0] == found[1]
    records: list[dict[str, Any]] = json.loads(found[0])
    assert all(set(one) == {"image_id", "category_id", "bbox", "score"} for one in records)
    assert {one["image_id"] for one in records} <= {10, 11}


def test_a_detector_of_other_classes_is_refused(dataset: Path, detector: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    description = json.loads((detector / "config.json").read_text())
    description["meta"]["classes"] = ["cat", "dog"]
    other.mkdir()
    (other / "config.json").write_text(json.dumps(description))
    (other / "model.safetensors").write_bytes((detector / "model.safetensors").read_bytes())
    with pytest.raises(
        MaskcastError, match=r"its classes \(cat, dog\) differ from the classes of .* \(red, blue\)"
    ):
        run_stage("evaluate_detector", {}, dataset=dataset, detector=other, **outputs(tmp_path / "out"))


@pytest.mark.parametrize(
    ("change", "line"),
    [({"split": "test"}, "split"), ({"batch_size": 0}, "batch_size"), ({"threshold": 0.5}, "unknown key")],
)
def test_wrong_params_name_their_key(
    dataset: Path, detector: Path, tmp_path: Path, change: dict[str, object], line: str
) -> None:
    with pytest.raises(MaskcastError, match=line):
        run_stage("evaluate_detector", change, dataset=dataset, detector=detector, **outputs(tmp_path / "out"))


def test_damaged_weights_are_said(dataset: Path, detector: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((detector / "config.json").read_bytes())
    save_file({"odd": torch.zeros(1)}, other / "model.safetensors")
    with pytest.raises(MaskcastError, match=r"model\.safetensors: missing weights"):
        run_stage("evaluate_detector", {}, dataset=dataset, detector=other, **outputs(tmp_path / "out"))
