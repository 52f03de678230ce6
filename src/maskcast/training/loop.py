"""The training loop: Fabric for devices, precision and DDP, our own for exact resume.

What a step samples is a pure function of (seed, step), and torch's random state is set from (seed, step)
before each loss. So the state of a run is: weights, optimiser, step, and the best weights so far. A run that
is killed and started again ends with the weights of an unbroken one, bit for bit on the CPU with one thread.

A task whose samples are too long for one backward pass gives the loss of its batch chunk by chunk (truncated
back-propagation through time): the gradients of all chunks add up to one optimiser step.

Started by torchrun, each process takes its part of the same batches, and all end with the same weights: those of
one process up to rounding (``maskcast.distributed``). The first process alone writes checkpoints.
"""

import logging
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, distributed, nn

from maskcast.distributed import join_batch_norms, world_size
from maskcast.errors import MaskcastError
from maskcast.progress import report, say, track
from maskcast.seed import derive
from maskcast.training.checkpoint import Checkpoints
from maskcast.training.schedule import Schedule

PREFETCH = 4  # batches made ahead, in one thread


class BaseTask(Protocol):
    """What all tasks have."""

    fingerprint: str
    """Names params and data: a checkpoint with another one is not continued."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    @property
    def monitor(self) -> str | None:
        """The metric of ``validate`` that picks the best weights (higher is better); None keeps the last."""

    def batch(self, step: int) -> Any:
        """Returns this process's part of a step's CPU tensors (``own_part``), a pure function of (seed, step).

        It runs in another thread.
        """

    def validate(self) -> dict[str, float]:
        """Returns the scores of ``model`` as it is, in eval mode; processes share the work and agree on them."""


class PlainTask(BaseTask, Protocol):
    """A task that gives the loss of a batch at once."""

    def loss(self, batch: Any, step: int) -> tuple[Tensor, dict[str, float]]:
        """Returns the loss of the whole batch (see ``maskcast.distributed``) and numbers to log."""


@runtime_checkable
class ChunkedTask(BaseTask, Protocol):
    """A task that gives the loss of a batch chunk by chunk.

    The loop calls backward on each loss before it asks for the next, so memory holds the graph of one chunk.
    """

    def chunks(self, batch: Any) -> int:
        """Returns how many losses ``losses`` yields of this batch: as many on each process."""

    def losses(self, batch: Any, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """Yields of each chunk its share of the loss of the whole batch, and of the numbers to log.

        Shares add up: what a loss divides by is counted over the whole batch. What goes from one chunk to the
        next is detached.
        """


Task = PlainTask | ChunkedTask
"""What is trained: the loop knows nothing else about it."""


class Trained(NamedTuple):
    """What a training gave.

    Args:
        scores: the validation scores of the best epoch, ``best_epoch``, ``epochs`` run and ``train_seconds``.
        curve: of every epoch its number, mean training ``loss`` (none of epoch 0) and validation scores.
    """

    scores: dict[str, float]
    curve: list[dict[str, float]]


def fit(task: Task, params: Schedule, resume: Path, *, start_counts: bool = False) -> Trained:
    """Trains ``task.model`` and leaves it with its best weights, in eval mode, on the CPU.

    Processes that torchrun started form a group for the length of the call.

    Args:
        task: model, batches, loss and validation.
        params: the schedule.
        resume: folder for the checkpoint (``stage.resume_dir``).
        start_counts: whether the weights it starts with are validated, too, as epoch 0, and kept where no epoch is
            better: for those that were trained before.

    Raises:
        MaskcastError: if the loss or the gradient is no longer finite, or the processes cannot share the batch.
    """
    fabric = make_fabric(params.precision, chunked=isinstance(task, ChunkedTask))
    fabric.launch()
    if params.batch_size % world_size():
        raise MaskcastError(
            f"training.batch_size {params.batch_size} cannot be divided among {world_size()} processes; "
            "choose a multiple"
        )
    optimizer = params.optimizer(task.model)
    if world_size() > 1:
        fabric.to_device(task.model)
        join_batch_norms(task.model)
    model, optimizer = fabric.setup(_NextLoss(task.model), optimizer)
    checkpoints = Checkpoints(resume, task.fingerprint)
    run = _Progress(best={}, best_weights=_weights(task.model))
    state = fabric.broadcast(checkpoints.load() if fabric.is_global_zero else None)
    if state is not None:
        task.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run = _Progress(**state["progress"])
        say(f"resuming at step {run.step} of {params.steps}")
    started = time.monotonic() - run.seconds

    def save() -> None:
        if not fabric.is_global_zero:
            return
        run.seconds = time.monotonic() - started
        state = {"model": task.model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(run)}
        checkpoints.save(state)

    if start_counts and not run.curve:
        _validate(task, params, run)
    steps = range(run.step, 0 if run.stopped else params.steps)
    for step, batch in track(_prefetch(task, steps), "training", total=len(steps)):
        task.model.train()
        for group in optimizer.param_groups:
            group["lr"] = params.rate(step)
        torch.manual_seed(derive(params.seed, step))
        loss, logged = _backward(fabric, model, *_losses(task, fabric.to_device(batch), step))
        norm = _clip(fabric, model, optimizer, params.clip_grad_norm)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise MaskcastError(
                f"step {step}: loss {loss:g}, gradient norm {norm:g}: training diverged; lower "
                "learning_rate, add warmup_steps or use precision fp32"
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.step, run.losses = step + 1, run.losses + loss
        report(
            {
                "train/loss": loss,
                "train/grad_norm": norm,
                "train/learning_rate": params.rate(step),
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
    if world_size() > 1:
        distributed.destroy_process_group()
    task.model.load_state_dict(run.best_weights)
    task.model.to("cpu").eval()
    epochs = run.step // params.steps_per_epoch
    took = {"best_epoch": run.best_epoch, "epochs": epochs, "train_seconds": time.monotonic() - started}
    return Trained(run.best | took, run.curve)


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
        losses: float = 0.0,
        curve: list[dict[str, float]] | None = None,
    ) -> None:
        self.losses, self.curve = losses, curve or []  # losses: their sum since the last epoch
        self.best, self.best_weights, self.step, self.best_epoch = best, best_weights, step, best_epoch
        self.stale, self.stopped, self.seconds = stale, stopped, seconds


class _NextLoss(nn.Module):
    """What DDP wraps: it averages the gradients of what happens inside one forward.

    It takes the iterator and no tensors: of an input, Fabric rounds every float to bf16, boxes in pixels, too.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, losses: Iterator[tuple[Tensor, dict[str, float]]]) -> tuple[Tensor, dict[str, float]]:
        return next(losses)


def _losses(task: Task, batch: Any, step: int) -> tuple[int, Iterator[tuple[Tensor, dict[str, float]]]]:
    """Returns how many losses a batch has, and yields them."""
    if isinstance(task, ChunkedTask):
        return task.chunks(batch), task.losses(batch, step)
    return 1, (task.loss(batch, step) for _ in range(1))


def _backward(
    fabric: Fabric, model: nn.Module, chunks: int, losses: Iterator[tuple[Tensor, dict[str, float]]]
) -> tuple[float, dict[str, float]]:
    """Adds up the gradients of all chunks; returns the sum of the losses and of the numbers to log."""
    total: list[Tensor] = []
    logged: dict[str, float] = {}
    for chunk in range(chunks):
        later = world_size() > 1 and chunk < chunks - 1  # the last one's backward synchronises the sums of all
        with fabric.no_backward_sync(model, enabled=later) if later else nullcontext():
            loss, numbers = model(losses)
            fabric.backward(loss)
        total.append(loss.detach())
        logged |= {name: logged.get(name, 0.0) + value for name, value in numbers.items()}
    return torch.stack(total).sum().item(), logged


def make_fabric(precision: str, *, chunked: bool = False) -> Fabric:
    """Returns Fabric on the accelerators where there are any, else the CPU; bf16 autocasts, weights stay fp32.

    In a process that torchrun started it is one of all its processes.

    Args:
        precision: ``bf16`` or ``fp32``.
        chunked: whether a step has several backward passes.

    Raises:
        MaskcastError: if there are more processes than GPUs.
    """
    processes, everywhere = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # no line per process
    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise MaskcastError(f"training.processes {processes} is above the {gpus} GPUs of this machine; lower it")
    # Some encoders have weights that take no part. A static graph finds them in its first backward pass alone, and
    # then expects each pass to synchronise, which all but the last chunk's do not.
    ddp = DDPStrategy(find_unused_parameters=True) if chunked else DDPStrategy(static_graph=True)
    return Fabric(
        accelerator="auto",
        devices=processes,
        num_nodes=everywhere // processes,
        strategy=ddp if everywhere > 1 else "auto",
        precision="bf16-mixed" if precision == "bf16" else "32-true",
    )


def _validate(task: Task, params: Schedule, run: _Progress) -> None:
    epoch = run.step // params.steps_per_epoch
    task.model.eval()
    with torch.no_grad():
        scores = task.validate()
    report({f"val/{name}": value for name, value in scores.items()}, step=run.step)
    trained = {"loss": run.losses / params.steps_per_epoch} if epoch else {}
    run.curve.append({"epoch": epoch, **trained, **scores})
    run.losses = 0.0
    better = task.monitor is None or not run.best or scores[task.monitor] > run.best[task.monitor]
    if better:
        run.best, run.best_epoch, run.best_weights, run.stale = scores, epoch, _weights(task.model), 0
    else:
        run.stale += 1
        run.stopped = 0 < params.patience <= run.stale
    mark = " *" if better else " (stopping early)" if run.stopped else ""
    shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    say(f"epoch {epoch}/{params.total_epochs}: {shown}{mark}")


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
