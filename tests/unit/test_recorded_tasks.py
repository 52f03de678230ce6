"""Whole steps that are recorded: nothing in them goes by the number of the step, or meets the GPU halfway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import recorded
from tests.conftest import SMALL_DETECTOR, moving_squares, write_detection_set
from tests.unit.test_recorded_steps import Crossings, moved, on_gpu, without_kernels
from torch._subclasses.fake_tensor import FakeTensorMode

from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.detection.dataset import DetectionSet
from maskcast.data.unlabeled import ClipFrames
from maskcast.labels import LabelMap
from maskcast.models.config import ModelConfig
from maskcast.models.cuda_graphs import map_tensors
from maskcast.models.forecasting.configs import ConvGRUConfig, ConvLSTMConfig, ObjectsConfig, SimVPConfig
from maskcast.models.segmentation.config import SegmenterModelConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.stages.pretrain_encoder import PretrainEncoder
from maskcast.stages.train_masker import TrainMasker
from maskcast.training import loop
from maskcast.training.learner import WARM_UP_STEPS
from maskcast.training.loop import fit
from maskcast.training.schedule import TrainingParams
from maskcast.training.task import ChunkedTask
from maskcast.training.tasks.dense import DenseTask
from maskcast.training.tasks.detection import DetectorTask
from maskcast.training.tasks.detection_params import DetectorTraining
from maskcast.training.tasks.encoder import EncoderTask
from maskcast.training.tasks.forecasting import ForecastTask
from maskcast.training.tasks.forecasting_params import ForecastTraining
from maskcast.training.tasks.segmentation import segmentation_task

TRAINING: dict[str, Any] = {
    "epochs": 1,
    "steps_per_epoch": 12,
    "batch_size": 4,
    "learning_rate": 0.01,
    "precision": "fp32",
}
UNET: dict[str, Any] = {"arch": "unet", "width": 2}
SQUARES = LabelMap(
    "squares",
    ("background", "red", "blue"),
    attributes={"shape": (None, "square", "square"), "colour": (None, "red", "blue")},
)


def write_squares(root: Path) -> ClipStore:
    """Writes clips of every split but hidden, whose classes have attributes."""
    with ClipWriter(root, height=32, width=48, maps=[SQUARES]) as writer:
        for k, split in enumerate(["train", "train", "val", "unlabeled", "unlabeled"]):
            frames, masks = moving_squares(k, 22, 32, 48)
            kind, labels = ("unlabelled", {}) if split == "unlabeled" else ("labelled", {"squares": masks})
            writer.add(f"clip_{k}", split=split, kind=kind, frames=frames, masks=labels)
    return ClipStore(root)


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    return write_squares(tmp_path / "clips")


def masker(**values: Any) -> Callable[[ClipStore], Any]:
    taught = {
        "ema": 0.9,
        "unlabeled": {
            "batch_size": 4,
            "burn_in_steps": WARM_UP_STEPS + 2,
            "ramp_steps": 3,
            "threshold": 0.3,
            "feature_dropout": 0.5,
        },
        "augment": {"crop": [16, 32]},
    }

    def made(store: ClipStore) -> Any:
        params = TrainMasker.model_validate({"model": UNET, "training": TRAINING} | taught | values)
        return segmentation_task(store, params, "x")

    return made


def encoder(**values: Any) -> Callable[[ClipStore], Any]:
    def made(store: ClipStore) -> Any:
        views = {"size": [16, 16]}
        params = PretrainEncoder.model_validate({"model": UNET, "training": TRAINING, "views": views} | values)
        frames = ClipFrames(store)
        if params.network is None:
            return EncoderTask(frames, params, params.method, "x")  # type: ignore[arg-type]
        return DenseTask(frames, params, params.method, params.network, "x")  # type: ignore[arg-type]

    return made


TASKS = {
    "taught": masker(recoloured={"attributes": ["colour"]}),
    "memory": masker(
        model={"arch": "recurrent", "base": UNET}, window={"frames": 3, "chunk": 2, "burn_in": 1, "alone": 0.5}
    ),
    "masked": encoder(network=UNET, method={"name": "masked", "patch": 4}),
    "byol": encoder(method={"name": "byol", "sub_batches": 2}),
    "moco": encoder(method={"name": "moco", "queue": 8, "sub_batches": 2}),
}


@pytest.mark.parametrize("made", TASKS.values(), ids=TASKS)
def test_a_recorded_training_learns_what_a_written_one_does(
    made: Callable[[ClipStore], Any], store: ClipStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what begins in the middle, too: each shape of batches is recorded by itself."""
    plain, task = made(store), made(store)
    assert task.same_each_step
    curve = fit(plain, task.params.training, tmp_path / "plain").curve
    monkeypatch.setattr(loop, "Learner", recorded.Learner)
    assert fit(task, task.params.training, tmp_path / "recorded").curve == curve
    shapes = 2 if getattr(task, "semi_supervised", None) else 1
    assert recorded.Learner.recorder.replays == TRAINING["steps_per_epoch"] - shapes * WARM_UP_STEPS
    for name, weights in plain.model.state_dict().items():
        assert torch.equal(weights, task.model.state_dict()[name]), name


def forecaster(config: ModelConfig) -> Callable[[ClipStore], Any]:
    def made(store: ClipStore) -> Any:
        params = ForecastTraining(training=TrainingParams(**TRAINING), context_frames=11, horizon=11)
        train = store.select("train", "labelled")
        torch.manual_seed(0)
        model: Any = config.build(store.num_classes)
        model.prepare(store, train)
        masker = UNetConfig(width=2).build([SQUARES]) if model.input.needs_masker else None
        same: dict[str, Any] = {"clips": store, "masks": store, "target": store, "train": train}
        return ForecastTask(model, config, params, **same, masker=masker, fingerprint="x")

    return made


def detector(version: int) -> Callable[[ClipStore], Any]:
    def made(store: ClipStore) -> Any:
        dataset = store.root.with_name("set")
        if not dataset.exists():
            write_detection_set(dataset, train=4, val=2)
        phases = [{"learning_rate": 0.02, "epochs": 1}]
        training = {"phases": phases, "batch_size": 2, "steps_per_epoch": 12, "precision": "fp32"}
        values = {"model": SMALL_DETECTOR | {"version": version}, "training": training}
        return DetectorTask(DetectionSet(dataset), DetectorTraining.model_validate(values), None, "x")

    return made


WITHOUT_TEACHER: dict[str, Any] = {"ema": None, "unlabeled": None}
# a GPU trains all of these, recorded and eagerly (tests/contract/test_cuda.py)
STEPS = TASKS | {
    "mirror": masker(mirror=True),
    "class weights": masker(
        **WITHOUT_TEACHER, loss={"class_weights": [0.3, 1, 1], "dice_over": "frame", "dice_smooth": 1e-4}
    ),
    "softmax focal": masker(**WITHOUT_TEACHER, loss={"dice_classes": "present", "focal_form": "softmax"}),
    "deeplab": masker(**WITHOUT_TEACHER, model={"arch": "smp_deeplabv3plus", "encoder": "resnet18"}),
    "dpt": masker(**WITHOUT_TEACHER, model={"arch": "smp_dpt", "encoder": "tu-vit_tiny_patch16_dinov3_qkvb"}),
    "own outputs": masker(
        **WITHOUT_TEACHER,
        model={"arch": "recurrent", "base": UNET, "cell": "lstm", "sees": "own_outputs", "place": "logits"},
        window={"frames": 3, "chunk": 2},
    ),
    "next frame": encoder(network=UNET, method={"name": "next_frame"}),
    "densecl": encoder(method={"name": "densecl", "queue": 8, "sub_batches": 2}),
    "objects": forecaster(ObjectsConfig(hidden=8)),
    "whole objects": forecaster(ObjectsConfig(hidden=8, whole=True, several=True)),
    "still": forecaster(ConvLSTMConfig(hidden=4, stride=4, motion="none", loss_steps=5, loss_stride=1)),
    "moving": forecaster(ConvLSTMConfig(hidden=4, layers=2, norm="batch", peepholes="channel")),
    "convgru": forecaster(ConvGRUConfig(hidden=8)),
    "feedback": forecaster(ConvGRUConfig(hidden=4, stride=1, embedding="onehot", motion="none", feedback=True)),
    "frames": forecaster(ConvGRUConfig(hidden=4, input="frames")),
    "simvp": forecaster(SimVPConfig(hidden=2, blocks=1, loss_stride=3)),
    "whole simvp": forecaster(SimVPConfig(hidden=2, blocks=1, whole=True)),
    "detector 1": detector(1),
    "detector 2": detector(2),
}


@pytest.mark.parametrize("made", STEPS.values(), ids=STEPS)
def test_host_and_device_do_not_meet(
    made: Callable[[ClipStore], Any], store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time: what is sent once is there before a step is recorded. No number keeps a step's graph."""
    task, step = made(store), TRAINING["steps_per_epoch"] - 1
    without_kernels(monkeypatch)
    assert task.same_each_step
    batch = task.batch(step)
    with FakeTensorMode(allow_non_fake_inputs=True):  # torchvision keeps anchors in a list
        moved(task.model.train())
        batch = map_tensors(batch, on_gpu)
        for _ in range(2):
            with Crossings() as crossings:
                given = task.losses(batch, step) if isinstance(task, ChunkedTask) else [task.loss(batch, step)]
                for loss, numbers in given:
                    assert {each.device.type for each in (loss, *numbers.values())} == {"cuda"}
                    assert loss.requires_grad and not any(each.requires_grad for each in numbers.values())
        assert crossings.found == []


@pytest.mark.parametrize("name", ["taught", "masked"])
def test_a_network_of_another_package_is_recorded_only_if_it_says_so(
    name: str, store: ClipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may draw on the host: a recorded step would repeat what was drawn once."""
    monkeypatch.setattr(UNetConfig, "same_each_step", SegmenterModelConfig.same_each_step)
    assert not TASKS[name](store).same_each_step
