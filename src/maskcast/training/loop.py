"""The training loop: every step, its checkpoints and validations, and exact resume.

What a step samples is a pure function of (seed, step), and torch's random state is set from (seed, step)
before each loss. So the state of a run is: weights, optimiser, step, and the best weights so far. A run that
is killed and started again ends with the weights of an unbroken one, bit for bit on the CPU with one thread.

A task whose samples are too long for one backward pass gives the loss of its batch chunk by chunk (truncated
back-propagation through time): the gradients of all chunks add up to one optimiser step.

Started by torchrun, each process takes its part of the same batches, and all end with the same weights: those of
one process up to rounding (``maskcast.distributed``). The first process alone writes checkpoints.
"""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from maskcast.distributed import average_gradients, from_first, join_batch_norms, rank, world_size
from maskcast.errors import MaskcastError
from maskcast.progress import report, say, track
from maskcast.seed import derive
from maskcast.stopping import saying_where
from maskcast.training.checkpoint import Checkpoints
from maskcast.training.processes import Processes
from maskcast.training.schedule import Schedule
from maskcast.training.task import ChunkedTask, Task

PREFETCH = 4  # batches made ahead, in one thread
Losses = Iterator[tuple[Tensor, dict[str, float]]]


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
    processes = Processes(params.precision)
    if params.batch_size % world_size():
        raise MaskcastError(
            f"training.batch_size {params.batch_size} cannot be divided among {world_size()} processes; "
            "choose a multiple"
        )
    task.model.to(processes.device)
    optimizer = params.optimizer(task.model)
    if world_size() > 1:
        join_batch_norms(task.model)
    chunked, model = isinstance(task, ChunkedTask), _NextLoss(task.model, processes)
    learner = model if chunked else processes.averaging(model)
    checkpoints = Checkpoints(resume, task.fingerprint)
    run = _Progress(best={}, best_weights=_weights(task.model))
    state = from_first(checkpoints.load() if rank() == 0 else None)
    if state is not None:
        task.model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        run = _Progress(**state["progress"])
        say(f"resuming at step {run.step} of {params.steps}")
    started = time.monotonic() - run.seconds

    def save() -> None:
        if rank():
            return
        run.seconds = time.monotonic() - started
        state = {"model": task.model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(run)}
        checkpoints.save(state)

    if start_counts and not run.curve:
        _validate(task, params, run)
    steps = range(run.step, 0 if run.stopped else params.steps)
    with saying_where(lambda: f" at epoch {run.step // params.steps_per_epoch + 1} of {params.total_epochs}"):
        for step, batch in track(_prefetch(task, steps), "training", total=len(steps)):
            task.model.train()
            for group in optimizer.param_groups:
                group["lr"] = params.rate(step)
            torch.manual_seed(derive(params.seed, step))
            loss, logged = _backward(learner, *_losses(task, processes.to_device(batch), step))
            if chunked:
                average_gradients(task.model)
            norm = _clip(optimizer, params.clip_grad_norm)
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
    processes.leave()
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
    """What DDP wraps, which averages the gradients of what happens inside one forward."""

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        super().__init__()
        self.model, self.processes = model, processes

    def forward(self, losses: Losses) -> tuple[Tensor, dict[str, float]]:
        with self.processes.autocast():
            loss, logged = next(losses)
        return loss.float() if self.processes.bf16 else loss, logged


def _losses(task: Task, batch: Any, step: int) -> tuple[int, Losses]:
    """Returns how many losses a batch has, and yields them."""
    if isinstance(task, ChunkedTask):
        return task.chunks(batch), task.losses(batch, step)
    return 1, (task.loss(batch, step) for _ in range(1))


def _backward(model: nn.Module, chunks: int, losses: Losses) -> tuple[float, dict[str, float]]:
    """Adds up the gradients of all chunks; returns the sum of the losses and of the numbers to log."""
    total: list[Tensor] = []
    logged: dict[str, float] = {}
    for _ in range(chunks):
        loss, numbers = model(losses)
        loss.backward()
        total.append(loss.detach())
        logged |= {name: logged.get(name, 0.0) + value for name, value in numbers.items()}
    return torch.stack(total).sum().item(), logged


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


def _clip(optimizer: Optimizer, max_norm: float | None) -> float:
    """Clips the global norm of the gradient and returns what it was."""
    learned = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return float(nn.utils.clip_grad_norm_(learned, max_norm or math.inf))


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
