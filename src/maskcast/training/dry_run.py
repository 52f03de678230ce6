"""Rehearses a training: runs some of its steps with its own batches, and measures the time of each part.

The steps are spread over the whole training, because later ones may do more: teachers begin, phases change. The
samples of a step are a pure function of (seed, step), so any step can be run by itself.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from maskcast.dry_run import write_note
from maskcast.training.learner import WARM_UP_STEPS
from maskcast.training.loop import Trained, fit
from maskcast.training.schedule import Schedule
from maskcast.training.task import ChunkedTask, Task

WARM_UP = 2  # steps
NUM_PLACES = 3  # in the training: beginning, middle and end
MEASURED_S = 8.0  # seconds for the measured steps, unless even the fewest take longer
MIN_STEPS, MAX_STEPS = 2, 8  # steps at each place


def dry_run_training(task: Task, params: Schedule, resume: Path, *, validate_start: bool = False) -> Trained:
    """Runs a short `fit`: a few steps with the real batch, a validation and a checkpoint; records their seconds.

    Args:
        task: as for `fit`; the few steps change its model.
        params: the schedule of the real training.
        resume: folder for the checkpoint.
        validate_start: as for `fit`.

    Raises:
        MaskcastError: see `fit`.
    """
    run_steps = partial(fit, task, full_steps=params.steps)
    trial = _TimedSteps(task, [min(step, params.steps - 1) for step in range(WARM_UP)])
    started = time.monotonic()
    with trial:
        run_steps(_shortened(params, WARM_UP), resume / "warm-up", on_step_start=trial.on_step_start)
    write_note(loop="warm-up", spent=time.monotonic() - started, each=0.0, times=0)
    steps_per_place = int(min(MAX_STEPS, max(MIN_STEPS, MEASURED_S / NUM_PLACES / max(trial.steps_s[-1], 1e-3))))
    steps_per_place = max(1, min(steps_per_place, params.steps // NUM_PLACES))
    starts = [place * (params.steps - steps_per_place) // (NUM_PLACES - 1) for place in range(NUM_PLACES)]
    trial = _TimedSteps(task, [start + step for start in starts for step in range(steps_per_place)])
    with trial:
        short = _shortened(params, len(trial.places))
        trained = run_steps(
            short, resume / "measured", validate_start=validate_start, on_step_start=trial.on_step_start
        )
    # the first step waits for its batch; on a GPU the next ones run before the step is recorded
    num_skipped = WARM_UP_STEPS + 1 if torch.cuda.is_available() else 1
    step_seconds = trial.steps_s[num_skipped:] or trial.steps_s[-1:]
    saves = params.steps // params.checkpoint_every + params.total_epochs
    write_note(
        loop="steps", spent=sum(trial.steps_s), each=sum(step_seconds) / len(step_seconds), times=params.steps
    )
    spent, each = sum(trial.validations_s), trial.validations_s[-1]
    validations = params.total_epochs + validate_start  # one per epoch, and one of the initial weights
    write_note(loop="validation", spent=spent, each=each, times=validations, part="val")
    write_note(loop="checkpoint", spent=trial.rest_s, each=trial.rest_s, times=saves)
    return trained


def _shortened(params: Schedule, steps: int) -> Schedule:
    """Returns a schedule of one epoch of ``steps`` steps, with the real batch size, optimiser and precision."""
    update: dict[str, Any] = {"steps_per_epoch": steps, "checkpoint_every": steps}
    update |= {"patience": 0, "time_limit": None}
    known = type(params).model_fields
    update |= {"epochs": 1} if "epochs" in known else {}
    if "phases" in known:
        phases: Any = getattr(params, "phases")  # noqa: B009 - only some schedules have it
        update["phases"] = [phases[0].model_copy(update={"epochs": 1})]
    return params.model_copy(update=update)


class _TimedSteps:
    """A context in which each step of the loop runs a given step of the real training; it takes their times.

    Args:
        task: its methods are replaced within the context.
        places: for each step of the loop, the step of the real training to run.

    Attributes:
        steps_s: seconds of each step.
        validations_s: seconds of each validation.
        rest_s: seconds after the last validation, for the checkpoint.
    """

    def __init__(self, task: Task, places: list[int]) -> None:
        self._task, self.places = task, places
        self._stamps: list[float] = []
        self.steps_s: list[float] = []
        self.validations_s: list[float] = []
        self.rest_s = 0.0

    def __enter__(self) -> "_TimedSteps":
        task: Any = self._task
        name = "losses" if isinstance(task, ChunkedTask) else "loss"
        batch, validate, loss = task.batch, task.validate, getattr(task, name)
        task.batch = lambda step: batch(self.places[step])
        task.validate = lambda: self._timed_validate(validate)
        setattr(task, name, lambda batch, step: loss(batch, self.places[step]))
        self._replaced = ("batch", "validate", name)
        return self

    def __exit__(self, *_: object) -> None:
        self.rest_s = time.monotonic() - self._ended if self.validations_s else 0.0
        for name in self._replaced:
            delattr(self._task, name)  # uncovers the class's method

    def on_step_start(self, step: int) -> None:
        """Takes the time at the start of a step. The loss cannot: recorded steps no longer call it."""
        self._stamps.append(time.monotonic())

    def _timed_validate(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        begin = time.monotonic()
        if self._stamps:  # epoch 0 has no steps
            ends = [*self._stamps[1:], begin]
            self.steps_s = [end - start for start, end in zip(self._stamps, ends, strict=True)]
        scores = validate()
        self._ended = time.monotonic()
        self.validations_s.append(self._ended - begin)
        return scores
