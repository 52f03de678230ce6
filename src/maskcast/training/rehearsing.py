"""A training that is tried: some steps of it, with its own batches, and what each part of it takes.

The steps are spread over the whole training, because later ones may do more: teachers begin, phases change. What a
step samples is a pure function of (seed, step), so any step can be taken.
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from maskcast.rehearsal import note
from maskcast.training.learner import WARM
from maskcast.training.loop import Trained, fit
from maskcast.training.schedule import Schedule
from maskcast.training.task import ChunkedTask, Task

WARM_UP = 2  # steps
PLACES = 3  # in the training: its begin, its middle and its end
MEASURED_S = 8.0  # seconds that the measured steps may take, where the least of them take less
FEWEST, MOST = 2, 8  # steps at each place


def rehearse(task: Task, params: Schedule, resume: Path, *, start_counts: bool = False) -> Trained:
    """Tries what `fit` does: a few steps with the real batch, a validation and a checkpoint; notes their seconds.

    Args:
        task: as of `fit`; it is left trained by the few steps.
        params: the schedule of the real training.
        resume: folder for the checkpoint.
        start_counts: as of `fit`.

    Raises:
        MaskcastError: see `fit`.
    """
    tried = partial(fit, task, of_steps=params.steps)
    trial = _Trial(task, [min(step, params.steps - 1) for step in range(WARM_UP)])
    began = time.monotonic()
    with trial:
        tried(_shortened(params, WARM_UP), resume / "warm-up", begins=trial.begins)
    note(loop="warm-up", spent=time.monotonic() - began, each=0.0, times=0)
    each = int(min(MOST, max(FEWEST, MEASURED_S / PLACES / max(trial.steps_s[-1], 1e-3))))
    each = max(1, min(each, params.steps // PLACES))
    starts = [place * (params.steps - each) // (PLACES - 1) for place in range(PLACES)]
    trial = _Trial(task, [start + step for start in starts for step in range(each)])
    with trial:
        short = _shortened(params, len(trial.places))
        trained = tried(short, resume / "measured", start_counts=start_counts, begins=trial.begins)
    # the first one waits for its batch, and a GPU's step is then recorded
    unlike = WARM + 1 if torch.cuda.is_available() else 1
    learned = trial.steps_s[unlike:] or trial.steps_s[-1:]
    saves = params.steps // params.checkpoint_every + params.total_epochs
    note(loop="steps", spent=sum(trial.steps_s), each=sum(learned) / len(learned), times=params.steps)
    spent = trial.validations_s
    validations = params.total_epochs + start_counts  # those of the epochs, and one of the start
    note(loop="validation", spent=sum(spent), each=spent[-1], times=validations, part="val")
    note(loop="checkpoint", spent=trial.rest_s, each=trial.rest_s, times=saves)
    return trained


def _shortened(params: Schedule, steps: int) -> Schedule:
    """Returns a schedule of one epoch of so many steps, at the real batch, optimiser and precision."""
    update: dict[str, Any] = {"steps_per_epoch": steps, "checkpoint_every": steps}
    update |= {"patience": 0, "time_limit": None}
    known = type(params).model_fields
    update |= {"epochs": 1} if "epochs" in known else {}
    if "phases" in known:
        phases: Any = getattr(params, "phases")  # noqa: B009 - of some schedules
        update["phases"] = [phases[0].model_copy(update={"epochs": 1})]
    return params.model_copy(update=update)


class _Trial:
    """Makes a task take other steps than the loop counts, within the block, and looks at the clock.

    Args:
        task: whose methods are replaced for the block.
        places: the step of the real training that each step of the loop is.

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
            delattr(self._task, name)  # the class's own is there again

    def begins(self, step: int) -> None:
        """Looks at the clock as a step begins: not in the loss, which a GPU's recorded step calls no more."""
        self._stamps.append(time.monotonic())

    def _placed(self, loss: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
        return lambda batch, step: loss(batch, self.places[step])

    def _validated(self, validate: Callable[[], dict[str, float]]) -> dict[str, float]:
        begin = time.monotonic()
        if self._stamps:  # epoch 0 has none
            ends = [*self._stamps[1:], begin]
            self.steps_s = [end - start for start, end in zip(self._stamps, ends, strict=True)]
        scores = validate()
        self._ended = time.monotonic()
        self.validations_s.append(self._ended - begin)
        return scores
