"""A dry run of a training: runs some of its steps with its own batches, and measures the time of each part.

The steps are spread over the whole training, because later ones may do more: teachers begin, phases change. The
samples of a step are a pure function of (seed, step), so any step can be run by itself.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from maskcast.dry_run_notes import write_note
from maskcast.training.learner import WARM_UP_STEPS
from maskcast.training.loop import Trained, fit
from maskcast.training.schedule import Schedule
from maskcast.training.step_metrics import Logged
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

    def run(places: list[int], name: str, *, validate_start: bool = False) -> tuple[_Trial, Trained]:
        trial = _ChunkedTrial(task, places) if isinstance(task, ChunkedTask) else _Trial(task, places)
        trained = fit(
            trial,
            _shortened(params, len(places)),
            resume / name,
            validate_start=validate_start,
            on_step_start=trial.on_step_start,
            full_steps=params.steps,
        )
        return trial, trained

    started = time.monotonic()
    trial, _ = run([min(step, params.steps - 1) for step in range(WARM_UP)], "warm-up")
    write_note(loop="warm-up", spent=time.monotonic() - started, each=0.0, times=0)
    steps_per_place = int(min(MAX_STEPS, max(MIN_STEPS, MEASURED_S / NUM_PLACES / max(trial.steps_s[-1], 1e-3))))
    steps_per_place = max(1, min(steps_per_place, params.steps // NUM_PLACES))
    starts = [place * (params.steps - steps_per_place) // (NUM_PLACES - 1) for place in range(NUM_PLACES)]
    places = [start + step for start in starts for step in range(steps_per_place)]
    trial, trained = run(places, "measured", validate_start=validate_start)
    rest_s = time.monotonic() - trial.ended
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
    write_note(loop="checkpoint", spent=rest_s, each=rest_s, times=saves)
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


class _Trial(Task):
    """A task each of whose steps is a given one of the real training; it takes their times.

    Args:
        task: of the real training.
        places: for each step of the loop, the step of the real training to run.

    Attributes:
        steps_s: seconds of each step.
        validations_s: seconds of each validation.
        ended: when the last validation did.
    """

    def __init__(self, task: Task, places: list[int]) -> None:
        self._task, self.places = task, places
        self.model, self.fingerprint, self.monitor = task.model, task.fingerprint, task.monitor
        self._stamps: list[float] = []
        self.steps_s: list[float] = []
        self.validations_s: list[float] = []
        self.ended = 0.0

    @property
    def same_each_step(self) -> bool:
        return self._task.same_each_step

    @property
    def networks(self) -> Sequence[nn.Module]:
        return self._task.networks

    def batch(self, step: int) -> Any:
        return self._task.batch(self.places[step])

    def loss(self, batch: Any, step: int) -> tuple[Tensor, Logged]:
        return self._task.loss(batch, self.places[step])

    def end_step(self, step: int) -> None:
        self._task.end_step(step)

    def check_rebuilt(self) -> None:
        self._task.check_rebuilt()

    def improves_on_start(self) -> bool:
        return self._task.improves_on_start()

    def on_step_start(self, step: int) -> None:
        """Takes the time at the start of a step. The loss cannot: recorded steps no longer call it."""
        self._stamps.append(time.monotonic())

    def validate(self) -> dict[str, float]:
        begin = time.monotonic()
        if self._stamps:  # epoch 0 has no steps
            ends = [*self._stamps[1:], begin]
            self.steps_s = [end - start for start, end in zip(self._stamps, ends, strict=True)]
        scores = self._task.validate()
        self.ended = time.monotonic()
        self.validations_s.append(self.ended - begin)
        return scores


class _ChunkedTrial(_Trial, ChunkedTask):
    def __init__(self, task: ChunkedTask, places: list[int]) -> None:
        super().__init__(task, places)
        self._chunked = task

    def chunks(self, batch: Any) -> int:
        return self._chunked.chunks(batch)

    def losses(self, batch: Any, step: int) -> Iterator[tuple[Tensor, Logged]]:
        return self._chunked.losses(batch, self.places[step])
