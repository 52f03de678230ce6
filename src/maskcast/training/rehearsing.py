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
PLACES = 3  # in the training: beginning, middle and end
MEASURED_S = 8.0  # seconds for the measured steps, unless even the fewest take longer
FEWEST, MOST = 2, 8  # steps at each place


def rehearse(task: Task, params: Schedule, resume: Path, *, start_counts: bool = False) -> Trained:
    """Runs a short `fit`: a few steps with the real batch, a validation and a checkpoint; records their seconds.

    Args:
        task: as for `fit`; the few steps change its model.
        params: the schedule of the real training.
        resume: folder for the checkpoint.
        start_counts: as for `fit`.

    Raises:
        MaskcastError: see `fit`.
    """
    tried = partial(fit, task, of_steps=params.steps)
    trial = _Trial(task, [min(step, params.steps - 1) for step in range(WARM_UP)])
    began = time.monotonic()
    with trial:
        tried(_shortened(params, WARM_UP), resume / "warm-up", begins=trial.begins)
    write_note(loop="warm-up", spent=time.monotonic() - began, each=0.0, times=0)
    each = int(min(MOST, max(FEWEST, MEASURED_S / PLACES / max(trial.steps_s[-1], 1e-3))))
    each = max(1, min(each, params.steps // PLACES))
    starts = [place * (params.steps - each) // (PLACES - 1) for place in range(PLACES)]
    trial = _Trial(task, [start + step for start in starts for step in range(each)])
    with trial:
        short = _shortened(params, len(trial.places))
        trained = tried(short, resume / "measured", start_counts=start_counts, begins=trial.begins)
    # the first step waits for its batch; on a GPU the next ones run before the step is recorded
    unlike = WARM_UP_STEPS + 1 if torch.cuda.is_available() else 1
    learned = trial.steps_s[unlike:] or trial.steps_s[-1:]
    saves = params.steps // params.checkpoint_every + params.total_epochs
    write_note(loop="steps", spent=sum(trial.steps_s), each=sum(learned) / len(learned), times=params.steps)
    spent = trial.validations_s
    validations = params.total_epochs + start_counts  # one per epoch, and one of the initial weights
    write_note(loop="validation", spent=sum(spent), each=spent[-1], times=validations, part="val")
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


class _Trial:
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

    def __enter__(self) -> "_Trial":
        task: Any = self._task
        batch, validate = task.batch, task.validate
        loss = "losses" if isinstance(task, ChunkedTask) else "loss"
        task.batch = lambda step: batch(self.places[step])
        task.validate = lambda: self._validated(validate)
        setattr(task, loss, self._placed(getattr(task, loss)))
        self._replaced = ("batch", "validate", loss)
        return self

    def __exit__(self, *_: object) -> None:
        self.rest_s = time.monotonic() - self._ended if self.validations_s else 0.0
        for name in self._replaced:
            delattr(self._task, name)  # uncovers the class's method

    def begins(self, step: int) -> None:
        """Takes the time at the start of a step. The loss cannot: recorded steps no longer call it."""
        self._stamps.append(time.monotonic())

    def _placed(self, loss: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
        return lambda batch, step: loss(batch, self.places[step])

    def _validated(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        begin = time.monotonic()
        if self._stamps:  # epoch 0 has no steps
            ends = [*self._stamps[1:], begin]
            self.steps_s = [end - start for start, end in zip(self._stamps, ends, strict=True)]
        scores = validate()
        self._ended = time.monotonic()
        self.validations_s.append(self._ended - begin)
        return scores
