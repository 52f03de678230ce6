"""The benchmarked models: each is trained as in maskcast, on data of the same kind."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from _gpu.data import Sizes
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.detection.dataset import DetectionSet
from maskcast.data.unlabeled import ClipFrames
from maskcast.labels import IGNORE
from maskcast.models.config import ModelConfig
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.models.encoders.configs import MocoConfig, SmpEncoderConfig
from maskcast.models.forecasting.configs import ConvLSTMConfig, ObjectsConfig, SimVPConfig
from maskcast.models.segmentation.configs import SegmenterConfig, SmpConfig, UNetConfig
from maskcast.training.schedule import Phase, SgdCosine, SgdPhases, TrainingParams
from maskcast.training.tasks.detection import DetectorTask
from maskcast.training.tasks.detection_params import DetectorTraining
from maskcast.training.tasks.encoder import EncoderTask
from maskcast.training.tasks.encoder_params import EncoderTraining
from maskcast.training.tasks.forecasting import ForecastTask
from maskcast.training.tasks.forecasting_params import ForecastTraining
from maskcast.training.tasks.segmentation import segmentation_task
from maskcast.training.tasks.segmentation_params import SegmentationTraining

CONTEXT = HORIZON = 11


@dataclass(frozen=True)
class Case:
    """A model with its training task and inference.

    Args:
        name: name of the model.
        unit: name of a sample.
        batch: samples per batch.
        task: creates the task for maskcast's training loop.
        infer: runs inference, given the task and a batch on the device.
        infers: number of frames per call of ``infer``.
        compiled: replaces what can be compiled, given the task and the mode.
        masker: whether it is a masker, whose network supports both memory formats.
        autocasts: whether inference may run in bf16; forecasts run in the dtype of the weights.
        finds_boxes: whether it is a detector, whose inference waits for the host and is no CUDA graph.
    """

    name: str
    unit: str
    batch: int
    task: Callable[[], Any]
    infer: Callable[[Any, Any], object]
    infers: int
    compiled: Callable[[Any, str], None]
    masker: bool = False
    autocasts: bool = True
    finds_boxes: bool = False


def cases(folder: Path, sizes: Sizes) -> list[Case]:
    """Returns all models, with the data that ``prepare`` wrote.

    Args:
        folder: folder of the data.
        sizes: of models and batches.
    """

    def masker(config: SegmenterConfig) -> Any:
        params = SegmentationTraining(model=config, training=_training(sizes, sizes.masker))
        return segmentation_task(ClipStore(folder / "clips"), params, "gpu")

    def forecaster(config: ModelConfig, batch: int) -> ForecastTask:
        store = ClipStore(folder / "clips")
        train = list(store.select("train", "labelled"))
        torch.manual_seed(0)
        model: Any = config.build(store.num_classes)
        model.reset_to_constant_velocity()
        model.prepare(store, train)
        params = ForecastTraining(
            training=_training(sizes, batch),
            context_frames=CONTEXT,
            min_context_frames=CONTEXT,
            horizon=HORIZON,
        )
        same: dict[str, Any] = {"clips": store, "masks": store, "target": store, "train": train}
        return ForecastTask(model, config, params, **same, masker=None, fingerprint="gpu")

    def moving(name: str, config: ModelConfig, batch: int, compiled: Callable[[Any, str], None]) -> Case:
        task, frames = partial(forecaster, config, batch), sizes.forecaster * HORIZON
        return Case(name, "windows", batch, task, _forecast, frames, compiled, autocasts=False)

    every = {"loss_steps": HORIZON, "loss_stride": 1, "loss_clips": sizes.forecaster}
    lstm = ConvLSTMConfig(stride=4, hidden=4 if sizes.unet < 8 else 64, motion="none", **every)
    deeplab = SmpConfig(arch="smp_deeplabv3plus", encoder=sizes.encoder)
    return [
        _masker("U-Net", partial(masker, UNetConfig(width=sizes.unet)), sizes),
        _masker("DeepLabV3+", partial(masker, deeplab), sizes),
        moving("ConvLSTM stride 4", lstm, sizes.forecaster, _compile_cells),
        moving("simvp", SimVPConfig(), sizes.forecaster, _compile_dynamics),
        moving("objects", ObjectsConfig(), sizes.objects, _compile_motion),
        Case(
            "Faster R-CNN",
            "images",
            sizes.detector,
            partial(_detector, folder, sizes),
            lambda task, batch: task.detector(batch["images"]),
            sizes.detector,
            _compile_backbone,
            finds_boxes=True,
        ),
        Case(
            "MoCo",
            "pairs of views",
            sizes.views[0],
            partial(_moco, folder, sizes),
            lambda task, batch: task.siamese.encoder(batch.own[0]),
            sizes.views[0],
            _compile_encoders,
        ),
    ]


def schedule(sizes: Sizes) -> dict[str, Any]:
    """Returns the common part of all schedules: one epoch with twice the steps that are timed."""
    steps = 2 * sizes.steps
    return {"steps_per_epoch": steps, "warmup_steps": 0, "checkpoint_every": 10**6, "patience": 0}


def _training(sizes: Sizes, batch: int) -> TrainingParams:
    return TrainingParams(epochs=1, batch_size=batch, learning_rate=1e-3, **schedule(sizes))


def _masker(name: str, task: Callable[[], Any], sizes: Sizes) -> Case:
    return Case(name, "frames", sizes.masker, task, _segment, sizes.masker, _compile_masker, masker=True)


def _segment(task: Any, batch: Any) -> object:
    (logits,), _ = task.segmenter(batch.frames_BTHWC)
    return logits.argmax(2).to(torch.uint8)


def _forecast(task: Any, batch: Any) -> object:
    return task.model.forecast(task.seen, HORIZON)


def _detector(folder: Path, sizes: Sizes) -> DetectorTask:
    phases = [Phase(learning_rate=0.01, epochs=1)]
    training = SgdPhases(phases=phases, batch_size=sizes.detector, **schedule(sizes))
    least, most, proposals, rois = sizes.boxes
    model = FasterRcnnConfig(
        version=1, encoder=sizes.encoder, min_size=least, max_size=most, proposals=proposals, rois=rois
    )
    return DetectorTask(
        DetectionSet(folder / "boxes"), DetectorTraining(model=model, training=training), None, "gpu"
    )


def _moco(folder: Path, sizes: Sizes) -> EncoderTask:
    pairs, height, width = sizes.views
    method = MocoConfig(queue=sizes.queue, sub_batches=min(4, pairs // 2))
    params = EncoderTraining(
        model=SmpEncoderConfig(arch="smp", encoder=sizes.encoder),
        method=method,
        views={"size": (height, width)},
        training=SgdCosine(epochs=1, learning_rate=0.03, batch_size=pairs, **schedule(sizes)),
    )
    return EncoderTask(ClipFrames(ClipStore(folder / "clips")), params, method, "gpu")


def _compile_masker(task: Any, mode: str) -> None:
    task.segmenter.compile(mode=mode)


def _compile_cells(task: Any, mode: str) -> None:
    for cell in task.model.dynamics.cells:
        cell.step = torch.compile(cell.step, mode=mode)


def _compile_dynamics(task: Any, mode: str) -> None:
    task.model.dynamics.compile(mode=mode)


def _compile_motion(task: Any, mode: str) -> None:
    task.model.motion.compile(mode=mode)


def _compile_backbone(task: Any, mode: str) -> None:
    task.detector.network.backbone.compile(mode=mode)


def _compile_encoders(task: Any, mode: str) -> None:
    for encoder in (task.siamese.encoder, task.siamese.target[0]):
        encoder.compile(mode=mode)


def known_masks(store: ClipStore, count: int) -> torch.Tensor:
    """Returns the context masks of ``count`` windows, (count, CONTEXT, H, W) uint8."""
    clips = list(store.select("train", "labelled"))
    masks = [torch.from_numpy(store.masks(clips[k % len(clips)], slice(CONTEXT))) for k in range(count)]
    return torch.stack(masks).masked_fill_(torch.stack(masks) == IGNORE, 0)
