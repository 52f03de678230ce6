"""Tasks in float64. It fits each in two processes and writes the loss of every step to the file it is given.

Of the tasks whose networks may draw, such as for dropout, it writes what each process draws in a step.

python -m tests.integration.two_processes FILE
"""

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
import torch._dynamo  # as DDP does, in each process that has not done it
from tests.conftest import write_store
from tests.servers import free_ports
from tests.two_maps import MemoryTraining, write_two_maps
from torch import Tensor, nn

from maskcast.data.augment.frames import AugmentParams
from maskcast.data.unlabeled import ClipFrames
from maskcast.distributed import all_sum, rank_indices
from maskcast.errors import MaskcastError
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import MaskLossConfig
from maskcast.models.segmentation.losses import MaskLoss
from maskcast.progress import listening
from maskcast.seed import rng
from maskcast.stages.pretrain_encoder import PretrainEncoder, encoder_task
from maskcast.training.loop import fit
from maskcast.training.schedule import TrainingParams
from maskcast.training.task import ChunkedTask, Task
from maskcast.training.tasks.segmentation import FrameTask, WindowTask
from maskcast.training.tasks.segmentation_params import SegmentationTraining, WindowParams

PARAMS = TrainingParams(epochs=1, steps_per_epoch=12, batch_size=6, learning_rate=0.01, precision="fp32")
CLASSES = 4
SHAPE = (5, 8, 8)


class Losses:
    """A listener that keeps the losses."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        if "train/loss" in values:
            self.values.append(values["train/loss"])

    def file(self, path: Path, folder: str) -> None:
        raise AssertionError


class PlainTask(Task):
    """A masker with every term of its loss and a forecaster, both with BatchNorm.

    Samples differ in classes and in the number of labelled pixels, so that a mean of means would be another.
    """

    monitor = "score"
    fingerprint = "x"

    def __init__(self) -> None:
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(6)
        self.masker = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(6, CLASSES, 1))
        config = ConvLSTMConfig(hidden=4, stride=2, layers=2, motion="none", residual=False, norm="batch")
        self.forecaster = config.build(CLASSES)
        self.model: nn.Module = nn.ModuleList([self.masker, self.forecaster]).double()
        self.criterion = MaskLoss(MaskLossConfig(ce=1, dice=1, focal=1, background_weight=0.3))

    def batch(self, step: int) -> Tensor:
        samples = []
        for index in rank_indices(PARAMS.batch_size):
            random = rng(step, index)
            ids = random.integers(index % CLASSES + 1, size=SHAPE)
            ids[random.random(SHAPE) < index / PARAMS.batch_size] = 255
            samples.append(torch.from_numpy(ids.astype("uint8")))
        return torch.stack(samples)

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        return self._loss(batch), {}

    def _loss(self, batch: Tensor) -> Tensor:
        pictures = batch.flatten(0, 1)
        masked = self.criterion(self.masker(pictures[:, None].double() / 255), pictures)
        forecast, _ = self.forecaster.loss(batch[:, :3], batch[:, 3:])
        return masked + forecast

    def validate(self) -> dict[str, float]:
        return {"score": 0.0}


class Chunked(PlainTask, ChunkedTask):
    """The same, and then a memory that starts as learned: a weight that takes part in the first chunk alone."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Parameter(torch.ones(1, 3, dtype=torch.float64))
        self.unused, self.cell = nn.Linear(2, 2), nn.GRUCell(1, 3).double()
        self.model = nn.ModuleList([*self.model, nn.ParameterList([self.start]), self.unused, self.cell])

    def chunks(self, batch: Tensor) -> int:
        return 3

    def losses(self, batch: Tensor, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        yield self._loss(batch), {}
        memory = self.start.expand(len(batch), -1)
        for frame in (0, 4):
            memory = self.cell(batch[:, frame, 0, :1].double() / 255, memory)
            yield all_sum(memory.square().sum()) / PARAMS.batch_size, {}
            memory = memory.detach()


class Norms(PlainTask):
    """The same, and batch norms of each kind directly in the model, whose statistics are part of the loss."""

    def __init__(self) -> None:
        super().__init__()
        kinds = ({"affine": False}, {"track_running_stats": False}, {"momentum": None})
        self.norms = nn.ModuleList(nn.BatchNorm2d(CLASSES, **own) for own in kinds).double()
        self.model = nn.ModuleList([*self.model, *self.norms])

    def _loss(self, batch: Tensor) -> Tensor:
        pictures = batch.flatten(0, 1)
        x = self.masker(pictures[:, None].double() / 255)
        x = x + sum(norm(x) for norm in self.norms)
        means = [norm.running_mean.sum() + norm.running_var.sum() for norm in (self.norms[0], self.norms[2])]
        forecast, _ = self.forecaster.loss(batch[:, :3], batch[:, 3:])
        return self.criterion(x, pictures) + forecast + sum(means)


class Skipping(PlainTask):
    """A network that skips a layer from the second step on."""

    def loss(self, batch: Tensor, step: int) -> tuple[Tensor, dict[str, float]]:
        loss = self._loss(batch)
        return (loss, {}) if step == 0 else (self.criterion(self.masker(batch[:, :1].double()), batch[:, 0]), {})


def windows(folder: Path) -> WindowTask:
    """Returns the training of a segmenter with state, on windows with a map of classes and one of opacity."""
    window = WindowParams(frames=5, chunk=2, burn_in=1)
    params = MemoryTraining(training=PARAMS, window=window, augment=AugmentParams(crop=(12, 16)))
    task = WindowTask(write_two_maps(folder / "clips"), params, "windows")
    task.segmenter.double()
    return task


def taught(folder: Path) -> FrameTask:
    """Returns the training of a segmenter that learns from unlabelled frames, too, two of each clip."""
    unlabeled = {
        "batch_size": 8,
        "burn_in_steps": 4,
        "threshold": 0.4,
        "consistent_frames": 2,
        "feature_dropout": 0.5,
        "balance": True,
    }
    model = {"arch": "unet", "width": 2}
    values = {"model": model, "training": PARAMS, "ema": 0.9, "unlabeled": unlabeled, "val_frame_step": 11}
    params = SegmentationTraining.model_validate(values)
    task = FrameTask(write_store(folder / "clips"), params, "taught")
    task.model.double()
    return task


def pretrained(folder: Path, method: Mapping[str, object]) -> Task:
    """Returns the training of an encoder by a method."""
    unet = {"arch": "unet", "width": 2}
    own = {"network": unet} if method["name"] == "masked" else {}
    training = PARAMS.model_dump(exclude_unset=True)
    values = {"training": training, "model": unet, "method": method, "views": {"size": [16, 16]}, **own}
    frames = ClipFrames(write_store(folder / "clips"))
    return encoder_task(frames, PretrainEncoder.model_validate(values), "pretrained")


def drawn(task: str) -> list[float]:
    """Returns what a layer of this process's network draws in two steps."""
    numbers: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        made = DRAWING[task](Path(folder))
        layer = next(each for each in made.model.modules() if isinstance(each, nn.Conv2d))
        layer.register_forward_pre_hook(lambda *_: numbers.extend(torch.rand(int(layer.training)).tolist()))
        params = PARAMS.model_copy(update={"steps_per_epoch": 2})
        fit(made, params, Path(folder, "resume"))
    return numbers


def fitted(task: str) -> list[float]:
    """Returns the loss of every step of a task, with as many processes as there are."""
    kept = Losses()
    with listening(kept), tempfile.TemporaryDirectory() as folder:
        made = Skipping() if task == "skipping" else TASKS[task](Path(folder))
        fit(made, PARAMS, Path(folder, "resume"))
    return kept.values


TASKS: dict[str, Callable[[Path], PlainTask | WindowTask | FrameTask]] = {
    "plain": lambda _: PlainTask(),
    "chunked": lambda _: Chunked(),
    "norms": lambda _: Norms(),
    "windows": windows,
    "taught": taught,
}

DRAWING: dict[str, Callable[[Path], Task]] = {
    "drawn by moco": partial(
        pretrained, method={"name": "moco", "queue": 12, "hidden": 4, "dim": 4, "sub_batches": 2}
    ),
    "drawn by masked": partial(pretrained, method={"name": "masked"}),
    "drawn by taught": taught,
}


def fit_as(rank: int, port: int, task: str, file: Path) -> None:
    """Fits a task as one of two processes, whose environment is as torchrun sets it; each writes a file."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        found: list[float] | str = drawn(task) if task in DRAWING else fitted(task)
    except MaskcastError as error:
        found = str(error)
    file.with_suffix(f".{rank}").write_text(json.dumps(found))


def main(file: Path) -> None:
    """Forks the processes: this one has imported torch, and runs no threads."""
    torch.set_num_threads(1)
    found = {}
    for task in (*TASKS, "skipping", *DRAWING):
        (port,) = free_ports(1)
        both = [get_context("fork").Process(target=fit_as, args=(rank, port, task, file)) for rank in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0], task
        first, second = (json.loads(file.with_suffix(f".{rank}").read_text()) for rank in range(2))
        found[task] = [first, second] if task in DRAWING else first
    file.write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
