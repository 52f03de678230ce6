"""The learning-rate range test: how the loss of one training answers to a rate that grows with every step.

After Smith 2017 (Cyclical learning rates, arXiv 1506.01186), with the exponential sweep and the smoothing of
Gugger 2018 (How do you find a good learning rate), which fastai and Lightning have, too.
"""

from contextlib import closing
from typing import NamedTuple

from maskcast.errors import MaskcastError
from maskcast.progress import track
from maskcast.reading import counted
from maskcast.training.feeding import Feed
from maskcast.training.learner import Learner
from maskcast.training.optimizers import fused
from maskcast.training.processes import Processes
from maskcast.training.schedule import Schedule
from maskcast.training.task import Task

SMOOTHING = 0.95
DIVERGED = 4.0  # times the least smoothed loss: the sweep ends there
EDGE = 0.05  # share of a sweep at its ends of which no suggestion is taken: the mean is not settled there yet
FEWEST = 5  # steps that a slope can be told from


class Sweep(NamedTuple):
    """What a range test saw; all lists are as long, one entry a step.

    Args:
        rates: the learning rate of each step.
        losses: the loss of each step's batch, before the step.
        smoothed: exponential mean of the losses (0.95), corrected for its start.
        diverged: whether it ended before its last rate, where the loss left all bounds.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool

    @property
    def least(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return self.rates[min(range(len(self.rates)), key=self.smoothed.__getitem__)]

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest by log rate; None where it falls nowhere."""
        edge = max(1, round(EDGE * len(self.rates)))
        inner = range(edge, len(self.rates) - edge)
        slopes = {k: self.smoothed[k + 1] - self.smoothed[k - 1] for k in inner}
        if not slopes or min(slopes.values()) >= 0:
            return None
        return self.rates[min(slopes, key=slopes.__getitem__)]

    @property
    def suggestion(self) -> float | None:
        """A peak for a schedule: where the loss falls fastest, and at most a tenth of where it is lowest.

        The loss is lowest just before it grows, which is too high a rate to train at.
        """
        return None if self.steepest is None else min(self.steepest, self.least / 10)


def range_test(task: Task, params: Schedule, lowest: float, highest: float, steps: int) -> Sweep:
    """Trains a task at rates from ``lowest`` to ``highest``, each higher by the same factor.

    The model is left trained at rates that may have ruined it.

    Args:
        task: fresh; nothing is validated.
        params: batch size, optimiser and precision; its own rates are not used.
        lowest: rate of the first step.
        highest: rate of the last step.
        steps: of the sweep.

    Raises:
        MaskcastError: the loss leaves all bounds before anything can be told, or a batch does not fit.
    """
    processes = Processes(params.precision)
    if processes.several:
        raise MaskcastError("a range test runs in one process: set training.processes and training.nodes to 1")
    task.model.to(processes.device)
    optimizer = params.make_optimizer(task.model)
    fused(optimizer, processes.device)
    learner = Learner(task, params, processes, optimizer, params.steps)
    rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
    losses: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, False
    with processes.arithmetic(), closing(iter(Feed(task, range(steps), processes.device))) as batches:
        for step, batch in track(batches, "range test", total=steps):
            learner.step(step, batch, rate=rates[step])
            try:
                (numbers,) = learner.numbers.read(all_steps=True)
            except MaskcastError:  # no longer finite
                diverged = True
                break
            losses.append(numbers.loss)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * numbers.loss
            smoothed.append(mean / (1 - SMOOTHING ** len(losses)))  # as if there had been none before the first
            if step >= FEWEST and numbers.loss > DIVERGED * min(smoothed) > 0:
                diverged = True
                break
    learner.compiled.off()
    if len(losses) < FEWEST:
        raise MaskcastError(
            f"lowest {lowest:g}: the loss left all bounds within {counted(len(losses), 'step')}; choose a "
            "lower one, or precision fp32"
        )
    return Sweep(rates[: len(losses)], losses, smoothed, diverged)
