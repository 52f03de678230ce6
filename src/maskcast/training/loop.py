"""The training loop: steps, validations, checkpoints and exact resume.

The samples of a step are a pure function of (seed, step), and the random states of torch, NumPy and Python are set
from (seed, step) before each loss. So weights, optimiser, step and the best weights so far are the whole state of
a run. A run that is killed and started again ends with the weights of an uninterrupted one: bit for bit on the CPU
with one thread, and on one GPU with deterministic kernels.

A task whose samples are too long for one backward pass gives the loss of its batch in chunks (truncated
back-propagation through time). The gradients of all chunks add up to one optimiser step.

Under torchrun, each process takes its part of each batch, and all end with the same weights. Up to rounding, these
are those of a run with one process, except with dropout, which each draws for itself, and with the detector
or a loss of another package, whose losses are means over the processes (``maskcast.distributed``). Only the first
process writes checkpoints.

To keep a GPU busy, worker processes make batches (``feeding``), the loss is copied to the host some steps later
(``step_metrics``), the optimiser is fused, and parts of a network may be compiled (``compiling``). None of this
changes results on a CPU, but ``compile: true`` does: up to rounding.
"""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from torch.optim import Optimizer

from maskcast.distributed import broadcast, rank, sync_batch_norms, world_size
from maskcast.errors import MaskcastError
from maskcast.progress import report, say, track
from maskcast.stopping import Paused, add_stop_location, pause_on_signals
from maskcast.training.checkpoint import Checkpoints
from maskcast.training.epochs import Progress, check_start, weights_of
from maskcast.training.feeding import BatchLoader
from maskcast.training.learner import Learner
from maskcast.training.optimizers import fused, load_state
from maskcast.training.processes import Processes
from maskcast.training.schedule import Schedule
from maskcast.training.step_metrics import STEP_NUMBERS, StepMetrics
from maskcast.training.task import Task


class Trained(NamedTuple):
    """The results of a training.

    Args:
        scores: the validation scores of the best epoch, ``best_epoch``, ``epochs`` run and ``train_seconds``.
        curve: for each epoch its number, mean training ``loss`` (not for epoch 0) and validation scores.
    """

    scores: dict[str, float]
    curve: list[dict[str, float]]


def fit(
    task: Task,
    params: Schedule,
    resume: Path,
    *,
    validate_start: bool = False,
    on_step_start: Callable[[int], None] | None = None,
    full_steps: int | None = None,
) -> Trained:
    """Trains ``task.model``, which ends with its best weights, in eval mode, on the CPU.

    Processes that torchrun started form a process group during the call.

    Args:
        task: model, batches, loss and validation.
        params: the schedule.
        resume: folder for the checkpoint (``runner.outputs.resume_dir``).
        validate_start: whether to validate the initial weights as epoch 0 and keep them if no epoch is better; for
            weights that were trained before.
        on_step_start: is called with the number of each step before the step.
        full_steps: steps of the real training, if this is a dry run of it; else None.

    Raises:
        MaskcastError: if loss, gradient or weights are no longer finite, the batch does not fit into the memory of
            the GPU, the processes cannot share it, the network cannot be compiled although ``compile`` asks for
            it, or the checkpoint is damaged.
        Paused: if the time limit, SIGTERM, SIGHUP or SIGUSR1 ended it; a checkpoint of the last step was written.
    """
    processes = Processes(params.precision)
    if params.batch_size % world_size():
        raise MaskcastError(
            f"training.batch_size {params.batch_size} cannot be divided among {world_size()} processes; "
            "choose a multiple"
        )
    task.model.to(processes.device)
    task.check_rebuilt()
    optimizer = params.make_optimizer(task.model)
    fused(optimizer, processes.device)
    if world_size() > 1:
        sync_batch_norms(task.model)
    checkpoints = Checkpoints(resume, task.fingerprint)
    run = _resume(checkpoints, task, optimizer, params)
    if not run.step:
        check_start(task.model)
    started = time.monotonic() - run.seconds
    planned = full_steps or params.steps
    learner = Learner(task, params, processes, optimizer, planned)

    def save() -> None:
        if rank():
            return
        run.seconds = time.monotonic() - started
        state = {"model": task.model.state_dict(), "optimizer": optimizer.state_dict(), "progress": vars(run)}
        checkpoints.save(state)

    def position() -> str:
        return f" at epoch {run.step // params.steps_per_epoch + 1} of {params.total_epochs}"

    limit_s = None if params.time_limit is None else 60 * params.time_limit
    if params.warmup_steps > planned:
        say(
            f"warning: training.warmup_steps {params.warmup_steps} is above the {planned} steps of the training, "
            "which never reaches its learning rate; lower it"
        )
    with add_stop_location(position), processes.arithmetic(), pause_on_signals(limit_s) as pause_requested:
        if run.step:  # from here on signals pause it, so it may now say that it runs
            say(f"resuming at step {run.step} of {params.steps}")
        if validate_start and not run.curve:
            run.end_epoch(task, params)
        steps = range(run.step, 0 if run.stopped else params.steps)
        loader = BatchLoader(task, steps, processes.device, local_processes=processes.local_processes)
        with closing(iter(loader)) as batches:
            for step, batch in track(batches, "training", total=len(steps)):
                if on_step_start is not None:
                    on_step_start(step)
                learner.step(step, batch)
                run.step = step + 1
                epoch_ends = run.step % params.steps_per_epoch == 0
                pauses = run.step < params.steps and processes.any_requested(pause_requested(), step)
                saves = pauses or run.step % params.checkpoint_every == 0
                saves = saves or (rank() == 0 and checkpoints.is_due)  # the others write none
                for metrics in learner.metrics.read(all_steps=epoch_ends or saves):
                    run.losses += metrics.loss
                    _report(metrics, params.rate(metrics.step))
                if epoch_ends:
                    learner.compiled.off()
                    run.end_epoch(task, params)
                if epoch_ends or saves:
                    save()
                if run.stopped:
                    break
                if pauses:
                    processes.barrier()  # wait until the first one has written the checkpoint
                    raise Paused
    learner.compiled.off()
    processes.close()
    task.model.load_state_dict(run.best_weights)
    task.model.to("cpu").eval()
    epochs = run.step // params.steps_per_epoch
    summary = {"best_epoch": run.best_epoch, "epochs": epochs, "train_seconds": time.monotonic() - started}
    return Trained(run.best | summary, run.curve)


def _resume(checkpoints: Checkpoints, task: Task, optimizer: Optimizer, params: Schedule) -> Progress:
    """Loads the last checkpoint, if there is one, and returns the progress of the training."""
    state = broadcast(checkpoints.load() if rank() == 0 else None)
    if state is None:
        return Progress(best={}, best_weights=weights_of(task.model))
    with checkpoints.restoring():
        task.model.load_state_dict(state["model"])
        load_state(optimizer, state["optimizer"])
        return Progress(**state["progress"])


def _report(metrics: StepMetrics, rate: float) -> None:
    """Reports the numbers of a step."""
    values = metrics.logged | dict(zip(STEP_NUMBERS, (metrics.loss, metrics.norm, rate), strict=True))
    report({f"train/{name}": value for name, value in values.items()}, step=metrics.step + 1)
