"""How long, how fast, by which optimiser and on how many processes to train."""

import math
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from maskcast.params import LARGEST_INTEGER, Batch, Params

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


MAX_RATE = 1e30  # float32 has no numbers for what becomes of higher ones
MIN_RATE = 1e-8  # default of the lowest learning rate


def _choice(value: Any) -> Any:
    """Checks what may be one of two types, so that one line tells both; 1.0 is KFP's true."""
    if value == "auto" or value in (True, False):
        return value if value == "auto" else bool(value)
    raise ValueError("must be auto, true or false")


class Schedule(Params, ABC):
    """What every training has: batches, stops and processes.

    A subclass says at which rate, for how long and by which optimiser. An epoch is ``steps_per_epoch`` batches
    and ends with a validation.
    """

    steps_per_epoch: int = Field(ge=1)
    """Optimiser steps between two validations."""
    batch_size: Batch
    """Samples per step, summed over all processes."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    clip_grad_norm: float | None = Field(default=1.0, gt=0)
    """Clips the global norm of the gradient, that of a discriminator by itself; null does not clip."""
    patience: int = Field(default=15, ge=0)
    """Epochs without a better validation score after which training stops early; 0 turns this off. Epochs before
    the last phase, and those that begin before all data are used, do not count."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """`bf16`: autocast, with weights and sums in fp32, but fp32 on a CPU without bfloat16; `fp32`: everything in
    fp32, on a GPU too (no TF32)."""
    compile: Annotated[Literal["auto"] | bool, BeforeValidator(_choice)] = "auto"
    """Whether to compile the network. `auto` does so on a GPU if training has at least 3000 steps and is not
    recorded as a CUDA graph. true always compiles. false neither compiles nor records a CUDA graph."""
    seed: int = Field(default=0, ge=0)
    """Seed of initial weights, samples and augmentation."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; one is also written each minute, or more rarely where that would take more than
    1 % of the time. A killed run resumes from the last one."""
    time_limit: float | None = Field(default=None, gt=0, exclude=True)
    """Minutes after which training finishes its step, writes a checkpoint and exits with code 75; the same command
    resumes it. SIGTERM, SIGHUP and SIGUSR1 do the same. null sets no limit."""
    processes: int = Field(default=1, ge=1, exclude=True)
    """Processes on each node, one per GPU; they share the batch, so training gives the same result as with one, up
    to rounding (not of a detector, with dropout or stochastic depth, or with a loss of another package)."""
    nodes: int = Field(default=1, ge=1, exclude=True)
    """Number of machines; more than 1 starts a Kubeflow TrainJob, from within a pod of the cluster."""

    @property
    @abstractmethod
    def total_epochs(self) -> int:
        """Epochs at most."""

    @property
    def last_phase(self) -> int:
        """First epoch of the last phase, counted from 0."""
        return 0

    @abstractmethod
    def rate(self, step: int) -> float:
        """Returns the learning rate of a step."""

    @abstractmethod
    def make_optimizer(self, model: "nn.Module") -> "Optimizer":
        """Returns the optimiser of the learnable parameters; ``rate`` sets its learning rate before each step."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.total_epochs * self.steps_per_epoch

    @property
    def world_size(self) -> int:
        """Processes on all nodes."""
        return self.processes * self.nodes

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_size % self.world_size:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided among nodes x processes = "
                f"{self.nodes} x {self.processes}"
            )
        return self

    @model_validator(mode="after")
    def _countable(self) -> Self:
        if self.steps > LARGEST_INTEGER:
            raise ValueError(f"steps_per_epoch of all epochs are {self.steps} steps, above {LARGEST_INTEGER}")
        return self


class CosineSchedule(Schedule):
    """Linear warm-up to a peak, then half a cosine down, or cycles."""

    epochs: int = Field(ge=1)
    """Maximum number of epochs."""
    learning_rate: float = Field(gt=0, le=MAX_RATE)
    """Peak learning rate: linear warm-up, then cosine decay or cycles, updated every step."""
    min_learning_rate: float = Field(default=MIN_RATE, ge=0, le=MAX_RATE)
    """Rate that the cosine decay would reach one step after the last one, or the lowest rate of a cycle; at most
    learning_rate."""
    cycle_steps: int | None = Field(default=None, ge=1)
    """Steps from the lowest rate to the peak, and as many back, in cycles; each peak is half as far above the
    lowest rate as the one before (triangular2 of Smith 2017, arXiv 1506.01186). A warm-up replaces the first rise.
    null uses cosine decay."""

    @model_validator(mode="after")
    def _falling(self) -> Self:
        if self.min_learning_rate > max(self.learning_rate, MIN_RATE):  # the default never is
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate:g} is above learning_rate {self.learning_rate:g}"
            )
        return self

    @property
    def total_epochs(self) -> int:
        """Epochs at most."""
        return self.epochs

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        lowest = min(self.min_learning_rate, self.learning_rate)
        if self.cycle_steps is not None:
            rise = self.cycle_steps if self.warmup_steps else 0  # the warm-up is the first one
            cycle, place = divmod(step - self.warmup_steps + rise, 2 * self.cycle_steps)
            share = math.ldexp(1 - abs(place / self.cycle_steps - 1), -cycle)  # 2**cycle may be no float
            return lowest + (self.learning_rate - lowest) * share
        done = (step - self.warmup_steps) / (self.steps - self.warmup_steps)
        return lowest + (self.learning_rate - lowest) * 0.5 * (1 + math.cos(math.pi * done))


class TrainingParams(CosineSchedule):
    """How long and how fast to train, by AdamW or Muon; an epoch ends with a validation."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the update of each convolution and uses AdamW for the other weights: a masker learns
    more in the same number of steps."""
    weight_decay: float = Field(default=0.005, ge=0)
    """Decoupled weight decay, on tensors of two or more dimensions."""

    def make_optimizer(self, model: "nn.Module") -> "Optimizer":
        """Returns the optimiser; biases and norms do not decay."""
        from maskcast.models.optimizers import AdamW
        from maskcast.training.optimizers import Muon, convolutions

        groups = decay_groups(model, self.weight_decay)
        if self.optimizer == "adamw":
            return AdamW(groups, lr=self.learning_rate)
        return Muon(groups, lr=self.learning_rate, matrices=convolutions(model))


class _Sgd(Schedule):
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of SGD."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """L2 penalty of SGD, on tensors of two or more dimensions."""

    def make_optimizer(self, model: "nn.Module") -> "Optimizer":
        """Returns SGD with momentum; biases and norms do not decay."""
        from maskcast.models.optimizers import SGD

        return SGD(decay_groups(model, self.weight_decay), lr=self.rate(0), momentum=self.momentum)


class SgdCosine(CosineSchedule, _Sgd):
    """How long and how fast to train, by SGD with momentum; an epoch ends with a validation."""


class Phase(Params):
    """A stretch of training at one learning rate."""

    learning_rate: float = Field(gt=0, le=MAX_RATE)
    """Learning rate of every step after the warm-up."""
    epochs: int = Field(ge=1)
    """Epochs at this rate."""


class SgdPhases(_Sgd):
    """Training by SGD with momentum in phases, each at one learning rate; the first one warms up."""

    phases: list[Phase] = Field(min_length=1)
    """Phases of training, one after the other: [{learning_rate: 0.03, epochs: 23}, ...]."""

    @property
    def total_epochs(self) -> int:
        """Epochs at most."""
        return sum(phase.epochs for phase in self.phases)

    @property
    def last_phase(self) -> int:
        """First epoch of the last phase, counted from 0."""
        return self.total_epochs - self.phases[-1].epochs

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step."""
        number = phase_at([phase.epochs for phase in self.phases], step // self.steps_per_epoch)
        rate = self.phases[number].learning_rate
        return rate * min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else rate


def phase_at(lengths: Sequence[int], epoch: int) -> int:
    """Returns the index of the phase that an epoch, counted from 0, belongs to; 0 without phases.

    Args:
        lengths: epochs of each phase.
        epoch: beyond the end, it belongs to the last phase.
    """
    return min(bisect_right(list(accumulate(lengths)), epoch), max(0, len(lengths) - 1))


def decay_groups(model: "nn.Module", weight_decay: float) -> list[dict[str, Any]]:
    """Returns the parameter groups of an optimiser: biases and norms do not decay."""
    learnable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learnable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learnable if p.ndim < 2], "weight_decay": 0.0},
    ]
