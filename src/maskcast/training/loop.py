"""The training loop: Fabric for devices and precision, our own for exact resume.

What a step samples is a pure function of (seed, step), and torch's random state is set from (seed, step)
before each loss. So the state of a run is: weights, optimiser, step, and the best weights so far. A run that
is killed and started again ends with the weights of an unbroken one, bit for bit on the CPU with one thread.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning_fabric import Fabric
from pydantic import Field
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.progress import report, say, track
from maskcast.seed import derive
from maskcast.stage import StageParams
from maskcast.training.checkpoint import Checkpoints

PREFETCH = 4  # batches made ahead, in one thread


class TrainingParams(StageParams):
    """How long and how fast to train; an epoch is ``steps_per_epoch`` batches and ends with a validation."""

    epochs: int = Field(ge=1)
    """Number of epochs at most."""
    steps_per_epoch: int = Field(ge=1)
    """Optimiser steps between two validations."""
    batch_size: int = Field(ge=1)
    """Samples per step."""
    learning_rate: float = Field(gt=0)
    """Peak of the schedule: linear warm-up, then cosine per step (AdamW)."""
    min_learning_rate: float = Field(default=1e-8, ge=0)
    """Where the cosine ends."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.005, ge=0)
    """Decoupled weight decay of AdamW, on tensors of two or more dimensions."""
    clip_grad_norm: float | None = Field(default=1.0, gt=0)
    """Clips the global norm of the gradient; null leaves it alone."""
    patience: int = Field(default=15, ge=0)
    """Epochs without a better validation score before training stops; 0 never stops."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """Autocast to bf16 (weights and sums stay fp32) or everything in fp32."""
    seed: int = Field(default=0, ge=0)
    """Decides initial weights, samples and augmentation."""
    checkpoint_every: int = Field(default=200, ge=1)
    """Steps between checkpoints; a killed run goes on from the last one."""

    @property
    def steps(self) -> int:
        """Optimiser steps in all."""
        return self.epochs * self.steps_per_epoch


class Task(Protocol):
    """What is trained: the loop knows nothing else about it."""

    model: nn.Module
    monitor: str
    """The metric of ``validate`` that picks the best weights; higher is better."""
    fingerprint: str
    """Names params and data: a checkpoint with another one is not continued."""

    def batch(self, step: int) -> Any:
        """Returns the CPU tensors of a step, as a pure function of (seed, step); runs in another thread."""

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss and numbers to log."""

    def validate(self) -> dict[str, float]:
        """Returns the validation scores of ``model`` as it is, which the loop has put in eval mode."""


def fit(task: Task, params: TrainingParams, resume: Path) -> dict[str, float]:
    """Trains ``task.model`` and leaves it with its best weights, in eval mode, on the CPU.

    Args:
        task: model, batches, loss and validation.
        params: the schedule.
        resume: folder for the checkpoint (``stage.resume_dir``).

    Returns:
        The validation scores of the best epoch, ``best_epoch``, ``epochs`` run and ``train_seconds``.

    Raises:
        MaskcastError: if the loss or the gradient is no longer finite.
    """
    fabric = make_fabric(params.precision)
    optimizer = torch.optim.AdamW(_groups(task.model, params.weight_decay), lr=params.learning_rate)
    model, optimizer = fabric.setup(task.model, optimizer)
    checkpoints = Checkpoints(resume, task.fingerprint)
    run = _Progress(best={}, best_weights=_weights(task.model))
    if (state := checkpoints.load()) is not None:
        task.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run = _Progress(**state["progress"])
        say(f"resuming at step {run.step} of {params.steps}")
    started = time.monotonic() - run.seconds

    def save() -> None:
        run.seconds = time.monotonic() - started
        state = {"model": task.model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(run)}
        checkpoints.save(state)

    steps = range(run.step, 0 if run.stopped else params.steps)
    for step, batch in track(_prefetch(task, steps), "training", total=len(steps)):
        task.model.train()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(params, step)
        torch.manual_seed(derive(params.seed, step))
        with fabric.autocast():
            loss, logged = task.loss(fabric.to_device(batch), step)
        fabric.backward(loss)
        norm = _clip(fabric, model, optimizer, params.clip_grad_norm)
        if not (math.isfinite(loss.item()) and math.isfinite(norm)):
            raise MaskcastError(
                f"step {step}: loss {loss.item():g}, gradient norm {norm:g}: training diverged; lower "
                "learning_rate, add warmup_steps or use precision fp32"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.step = step + 1
        report(
            {
                "train/loss": loss.item(),
                "train/grad_norm": norm,
                "train/learning_rate": learning_rate(params, step),
            }
            | {f"train/{name}": value for name, value in logged.items()},
            step=run.step,
        )
        if run.step % params.steps_per_epoch == 0:
            _validate(task, params, run)
            save()
            if run.stopped:
                break
        elif run.step % params.checkpoint_every == 0:
            save()
    task.model.load_state_dict(run.best_weights)
    task.model.to("cpu").eval()
    epochs = run.step // params.steps_per_epoch
    return run.best | {
        "best_epoch": run.best_epoch,
        "epochs": epochs,
        "train_seconds": time.monotonic() - started,
    }


class _Progress:
    """The part of a run's state that is neither weights nor optimiser."""

    def __init__(
        self,
        best: dict[str, float],
        best_weights: dict[str, Tensor],
        step: int = 0,
        best_epoch: int = 0,
        stale: int = 0,
        stopped: bool = False,
        seconds: float = 0.0,
    ) -> None:
        self.best, self.best_weights, self.step, self.best_epoch = best, best_weights, step, best_epoch
        self.stale, self.stopped, self.seconds = stale, stopped, seconds


def make_fabric(precision: str) -> Fabric:
    """Returns Fabric on the accelerator where there is one, else the CPU; bf16 autocasts, weights stay fp32."""
    return Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if precision == "bf16" else "32-true")


def learning_rate(params: TrainingParams, step: int) -> float:
    """Returns the rate at ``step``: linear warm-up to the peak, then half a cosine down to the minimum."""
    if step < params.warmup_steps:
        return params.learning_rate * (step + 1) / params.warmup_steps
    done = (step - params.warmup_steps) / max(1, params.steps - params.warmup_steps)
    span = params.learning_rate - params.min_learning_rate
    return params.min_learning_rate + span * 0.5 * (1 + math.cos(math.pi * done))


def _validate(task: Task, params: TrainingParams, run: _Progress) -> None:
    epoch = run.step // params.steps_per_epoch
    task.model.eval()
    with torch.no_grad():
        scores = task.validate()
    report({f"val/{name}": value for name, value in scores.items()}, step=run.step)
    better = not run.best or scores[task.monitor] > run.best[task.monitor]
    if better:
        run.best, run.best_epoch, run.best_weights, run.stale = scores, epoch, _weights(task.model), 0
    else:
        run.stale += 1
        run.stopped = 0 < params.patience <= run.stale
    mark = " *" if better else " (stopping early)" if run.stopped else ""
    shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    say(f"epoch {epoch}/{params.epochs}: {shown}{mark}")


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns parameter groups: biases and norms do not decay."""
    learnable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in learnable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learnable if p.ndim < 2], "weight_decay": 0.0},
    ]


def _clip(fabric: Fabric, model: Any, optimizer: Any, max_norm: float | None) -> float:
    norm = fabric.clip_gradients(model, optimizer, max_norm=max_norm or math.inf, error_if_nonfinite=False)
    assert norm is not None
    return float(norm)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


def _prefetch(task: Task, steps: range) -> Iterator[tuple[int, Any]]:
    """Yields (step, batch), making the next few batches in a thread while the current one trains."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        ahead = {step: pool.submit(task.batch, step) for step in steps[:PREFETCH]}
        try:
            for step in steps:
                if step + PREFETCH in steps:
                    ahead[step + PREFETCH] = pool.submit(task.batch, step + PREFETCH)
                yield step, ahead.pop(step).result()
        finally:
            for future in ahead.values():
                future.cancel()
