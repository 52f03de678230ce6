"""train_detector on painted boxes: it learns, resumes exactly, and says what is wrong."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import SMALL_DETECTOR, write_detection_set
from torch import Tensor

from maskcast.data.detection.dataset import DetectionSet
from maskcast.errors import MaskcastError
from maskcast.models.detection.table import load_detector
from maskcast.models.encoders.configs import SmpEncoderConfig
from maskcast.models.encoders.table import save_encoder
from maskcast.progress import listening
from maskcast.runner.run import run_stage
from maskcast.stages.train_detector import TrainDetector, train_detector
from maskcast.training.tasks import detection as task_module
from maskcast.training.tasks.detection import DetectorTask, keep_confident

LOSSES = ("classifier", "box_reg", "objectness", "rpn_box_reg")
PARAMS: dict[str, Any] = {
    "model": SMALL_DETECTOR,
    "training": {
        "phases": [{"learning_rate": 0.02, "epochs": 1}],
        "steps_per_epoch": 4,
        "batch_size": 2,
        "clip_grad_norm": 10,
        "precision": "fp32",
    },
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def params(training: dict[str, Any] | None = None, **changes: Any) -> TrainDetector:
    return TrainDetector.model_validate(PARAMS | {"training": PARAMS["training"] | (training or {})} | changes)


def outputs(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    return {"detector": folder / "detector", "metrics": folder / "metrics.json"}


class Curves:
    """A listener that keeps what is reported by step."""

    def __init__(self) -> None:
        self.values: list[dict[str, float]] = []

    def metrics(self, values: Any, step: int | None) -> None:
        self.values.append(dict(values))

    def file(self, path: Path, folder: str) -> None:
        raise AssertionError

    def of(self, name: str) -> list[float]:
        return [values[name] for values in self.values if name in values]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_detection_set(tmp_path_factory.mktemp("data") / "set", train=8, val=4, unlabeled=3)


def test_it_learns_both_classes_and_leaves_a_detector(dataset: Path, tmp_path: Path) -> None:
    out = outputs(tmp_path / "out")
    phases = [{"learning_rate": 0.02, "epochs": 2}, {"learning_rate": 0.002, "epochs": 1}]
    training = {"phases": phases, "steps_per_epoch": 45, "batch_size": 4, "warmup_steps": 10}
    curves = Curves()
    with listening(curves):
        train_detector(dataset=dataset, params=params(training), **out)
    metrics = json.loads(out["metrics"].read_text())
    assert metrics["val_AP50"] > 0.1  # untrained 0.00; 0.7 to 1.0 by the kernels of the processor
    total = [
        sum(values[f"train/{name}"] for name in LOSSES) for values in curves.values if "train/classifier" in values
    ]
    assert np.mean(total[-20:]) < 0.7 * np.mean(total[:20])
    assert metrics["val_AP"] < metrics["val_AP50"]
    assert metrics["epochs"] == 3
    assert all(isinstance(value, int | float) for value in metrics.values())
    rates = curves.of("train/learning_rate")
    assert rates[:2] == pytest.approx([0.002, 0.004]) and rates[45] == 0.02 and rates[-1] == 0.002
    assert {f"train/{name}" for name in LOSSES} <= set(curves.values[0])
    detector, description = load_detector(out["detector"])
    assert description["meta"] == {"classes": ["red", "blue"], "original_ids": [7, 3]}
    split = DetectionSet(dataset).split("val")
    with torch.no_grad():
        found = detector([torch.tensor(split.image(n)) for n in range(4)])
    assert {label for image in found for label in image["labels"].tolist()} == {0, 1}


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema": 0.9, "unlabeled": {"batch_size": 1, "burn_in_steps": 2, "threshold": 0.05}}],
    ids=["supervised", "semi-supervised"],
)
def test_a_killed_run_ends_with_the_same_bytes(
    changes: dict[str, Any], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = params({"steps_per_epoch": 6, "checkpoint_every": 3}, **changes)
    unbroken, killed = outputs(tmp_path / "unbroken"), outputs(tmp_path / "killed")
    train_detector(dataset=dataset, params=short, **unbroken)

    class KilledTask(DetectorTask):
        def loss(self, batch: dict[str, list[Tensor]], step: int) -> tuple[Tensor, dict[str, float]]:
            if step == 5:
                raise Killed
            return super().loss(batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(task_module, "DetectorTask", KilledTask)
        with pytest.raises(Killed):
            train_detector(dataset=dataset, params=short, **killed)
    train_detector(dataset=dataset, params=short, **killed)
    first, second = (out["detector"] / "model.safetensors" for out in (unbroken, killed))
    assert first.read_bytes() == second.read_bytes()


def test_batches_are_a_function_of_seed_and_step(dataset: Path) -> None:
    data = DetectionSet(dataset)
    semi = {"ema": 0.9, "unlabeled": {"batch_size": 3, "burn_in_steps": 2}}
    task, again, other = (DetectorTask(data, params({"seed": seed}, **semi), None, "x") for seed in (1, 1, 2))
    assert set(task.batch(1)) == {"images", "boxes", "labels"}
    for name, tensors in task.batch(2).items():
        same, later = again.batch(2)[name], task.batch(3)[name]
        assert all(torch.equal(one, two) for one, two in zip(tensors, same, strict=True)), name
        assert name == "labels" or not all(a.equal(b) for a, b in zip(tensors, later, strict=True)), name
    assert not all(a.equal(b) for a, b in zip(task.batch(2)["images"], other.batch(2)["images"], strict=True))
    assert len(task.batch(2)["weak"]) == len(task.batch(2)["strong"]) == 3


def test_images_of_different_sizes_share_a_batch(dataset: Path) -> None:
    task = DetectorTask(DetectionSet(dataset), params({"batch_size": 8}), None, "x")
    batch = task.batch(0)
    assert len({tuple(image.shape) for image in batch["images"]}) > 1
    assert task.loss(batch, 0)[0].isfinite()


def test_the_running_average_is_what_is_kept(dataset: Path, tmp_path: Path) -> None:
    kept = {}
    for ema in (None, 0.99):
        out = outputs(tmp_path / str(ema))
        train_detector(dataset=dataset, params=params(ema=ema), **out)
        kept[ema] = load_file(out["detector"] / "model.safetensors")
    assert kept[None].keys() == kept[0.99].keys()
    assert any(not torch.equal(kept[None][name], kept[0.99][name]) for name in kept[None])


def test_pseudo_labels_are_the_confident_boxes() -> None:
    scores = torch.tensor([0.9, 0.7, 0.69, 0.1])
    found = {"scores": scores, "labels": torch.arange(4), "boxes": torch.arange(16.0).view(4, 4)}
    kept = keep_confident(found, 0.7)
    assert kept["labels"].tolist() == [0, 1] and kept["boxes"].shape == (2, 4)


def test_pseudo_labels_teach_classification_after_the_burn_in_and_no_regression(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    semi = {"batch_size": 1, "burn_in_steps": 2, "weight": 4.0}
    task = DetectorTask(DetectionSet(dataset), params(ema=0.9, unlabeled=semi), None, "x")
    assert task.burn_in_steps == semi["burn_in_steps"]
    box = {"boxes": torch.tensor([[4.0, 4, 30, 30]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.8])}
    taught: list[Any] = []

    def losses(images: Any, boxes: Any, labels: Any) -> dict[str, Tensor]:
        taught.append((boxes, labels))
        names = ("loss_objectness", "loss_classifier", "loss_box_reg", "loss_rpn_box_reg")
        return dict(zip(names, torch.tensor([1.0, 10, 100, 1000], requires_grad=True), strict=True))

    monkeypatch.setattr(task.averaged.live, "losses", losses)
    monkeypatch.setattr(task.averaged.average, "forward", lambda images: [box for _ in images])
    loss, logged = task.loss(task.batch(1), 1)
    assert loss.item() == 1111 and "pseudo" not in logged
    loss, logged = task.loss(task.batch(2), 2)
    assert loss.item() == 1111 + 4 * 11
    assert (logged["pseudo"], logged["pseudo_boxes"]) == (11, 1)
    assert taught[-1][0][0].tolist() == [[4, 4, 30, 30]] and taught[-1][1][0].tolist() == [1]


def test_it_trains_from_unlabelled_images(dataset: Path, tmp_path: Path) -> None:
    semi = {"batch_size": 2, "burn_in_steps": 1, "threshold": 0.05}
    curves = Curves()
    with listening(curves):
        train_detector(dataset=dataset, params=params(ema=0.9, unlabeled=semi), **outputs(tmp_path / "out"))
    assert len(curves.of("train/pseudo")) == 3
    assert all(math.isfinite(value) for value in curves.of("train/pseudo"))


def test_divergence_is_said_with_a_remedy(dataset: Path, tmp_path: Path) -> None:
    wild = params({"phases": [{"learning_rate": 1e12, "epochs": 1}], "clip_grad_norm": None})
    with pytest.raises(MaskcastError, match=r"training diverged; lower learning_rate"):
        train_detector(dataset=dataset, params=wild, **outputs(tmp_path / "out"))


def test_images_without_boxes_are_trained_on(tmp_path: Path) -> None:
    """Every fourth image is empty: a batch of one shows each of them alone."""
    root = write_detection_set(tmp_path / "set", train=4, val=1)
    task = DetectorTask(DetectionSet(root), params({"batch_size": 1}), None, "x")
    empty = [batch for batch in map(task.batch, range(20)) if not len(batch["boxes"][0])]
    assert empty
    loss, logged = task.loss(empty[0], 0)
    assert loss.isfinite() and logged["box_reg"] == 0


def test_an_encoder_is_where_it_starts(dataset: Path, tmp_path: Path) -> None:
    for name in ("tu-test_resnet", "resnet18"):
        encoder_config = SmpEncoderConfig(arch="smp", encoder=name)
        meta = {"method": "moco", "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
        save_encoder(tmp_path / name, encoder_config.build(), encoder_config, meta)
    frozen = params(model=PARAMS["model"] | {"norm": "frozen"})
    out = outputs(tmp_path / "out")
    train_detector(dataset=dataset, encoder=tmp_path / "tu-test_resnet", params=frozen, **out)
    pretrained, learned = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "tu-test_resnet", out["detector"])
    )
    np.testing.assert_allclose(learned["mean"], [0.1, 0.2, 0.3], rtol=1e-6)
    statistics = [name for name in pretrained if name.endswith("running_mean")]
    found = [next(key for key in learned if key.endswith(f"encoder.model.{name}")) for name in statistics]
    assert all(torch.equal(learned[a], pretrained[b]) for a, b in zip(found, statistics, strict=True))
    with pytest.raises(MaskcastError, match=r"pretrain_encoder\.model .*resnet18.* train_detector\.model"):
        train_detector(
            dataset=dataset, encoder=tmp_path / "resnet18", params=params(), **outputs(tmp_path / "refused")
        )


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": PARAMS["model"] | {"norm": "frozen"}}, r"model\.norm 'frozen' needs pretrained batch norms"),
        ({"unlabeled": {"batch_size": 1, "burn_in_steps": 0}}, "unlabeled needs a teacher: set ema"),
        ({"unlabeled": {"burn_in_steps": 0}, "ema": 0.9}, r"unlabeled\.batch_size: missing"),
        ({"ema": 1.0}, "ema: input should be less than 1"),
        ({"repeat_threshold": 0}, "repeat_threshold"),
        ({"augment": {"scale": [2, 1]}}, "scale"),
        ({"augment": {"scale": [1, 1e30]}}, "scale .* must be two factors above 0 and at most 10"),
        ({"training": PARAMS["training"] | {"phases": []}}, r"training\.phases"),
        ({"training": PARAMS["training"] | {"learning_rate": 0.1}}, r"training\.learning_rate: unknown key"),
    ],
)
def test_wrong_params_name_their_key(dataset: Path, tmp_path: Path, change: dict[str, Any], line: str) -> None:
    out = outputs(tmp_path / "out")
    with pytest.raises(MaskcastError, match=line) as error:
        run_stage("train_detector", PARAMS | change, dataset=dataset, **out)
    assert "\n" not in str(error.value)
    assert not any(path.exists() for path in out.values())


def test_the_images_are_digested_once(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.chdir(tmp_path)
    digested: Counter[str] = Counter()
    file_digest = hashlib.file_digest

    def counted(file: Any, function: str) -> Any:
        digested[file.name] += 1
        return file_digest(file, function)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    training = PARAMS["training"] | {"steps_per_epoch": 1}
    run_stage("train_detector", PARAMS | {"training": training}, dataset=dataset, **outputs(tmp_path / "out"))
    images = [*dataset.rglob("*.png")]
    trained = {
        image for image in images if "images/train" in str(image)
    }  # once more at the end: the model lists them
    assert len(images) == 15 and len(trained) == 8
    assert all(digested[str(image)] == 1 + (image in trained) for image in images)


def test_pseudo_labels_on_several_processes_are_refused() -> None:
    with pytest.raises(ValueError, match="unlabeled trains on one process"):
        params({"processes": 2}, ema=0.9, unlabeled={"batch_size": 2, "burn_in_steps": 0})


def test_absent_unlabelled_images_are_said(tmp_path: Path) -> None:
    root = write_detection_set(tmp_path / "set", train=2, val=1)
    semi = params(ema=0.9, unlabeled={"batch_size": 1, "burn_in_steps": 0})
    with pytest.raises(MaskcastError, match=r"no unlabelled images, which train_detector\.unlabeled needs"):
        train_detector(dataset=root, params=semi, **outputs(tmp_path / "out"))


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_without_boxes_is_refused(tmp_path: Path, split: str) -> None:
    root = write_detection_set(tmp_path / "set", train=2, val=2)
    empty = write_detection_set(tmp_path / "empty", boxes=0, train=2, val=2)
    (empty / f"{split}.json").rename(root / f"{split}.json")
    about, other = (json.loads((folder / "dataset.json").read_text()) for folder in (root, empty))
    about["splits"][split] = other["splits"][split]
    (root / "dataset.json").write_text(json.dumps(about))
    with pytest.raises(MaskcastError, match=f"no image of split '{split}' has a box"):
        train_detector(dataset=root, params=params(), **outputs(tmp_path / "out"))


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(MaskcastError, match=r"dataset\.json: not found"):
        train_detector(dataset=tmp_path / "clips", params=params(), **outputs(tmp_path / "out"))
