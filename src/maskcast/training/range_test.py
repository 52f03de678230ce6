"""The learning-rate range test: one short training in which the learning rate grows with every step.

After Smith 2017 (Cyclical learning rates, arXiv 1506.01186), with the exponential sweep and the smoothing of
Gugger 2018 (How do you find a good learning rate), as in fastai and Lightning.
"""

from contextlib import closing
from typing import NamedTuple

from maskcast.errors import MaskcastError
from maskcast.progress import track
from maskcast.reading import pluralize
from maskcast.training.feeding import BatchLoader
from maskcast.training.learner import Learner
from maskcast.training.optimizers import fused
from maskcast.training.processes import Processes
from maskcast.training.schedule import Schedule
from maskcast.training.task import Task

SMOOTHING = 0.95
DIVERGENCE_FACTOR = 4.0  # the sweep ends when the smoothed loss exceeds so many times its minimum
EDGE_SHARE = 0.05  # share of the sweep at each end that gives no suggestion: the running mean is unreliable there
MIN_STEPS = 5  # steps needed to estimate a slope


class Sweep(NamedTuple):
    """The results of a range test; the lists have one entry per step.

    Args:
        rates: the learning rate of each step.
        losses: the loss of each step's batch, before the step.
        smoothed: exponential moving average of the losses (decay 0.95), with bias correction.
        diverged: whether the sweep ended early because the loss diverged.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool

    @property
    def lowest_loss_rate(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return self.rates[min(range(len(self.rates)), key=self.smoothed.__getitem__)]

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls fastest over the log of the rate; None if it never falls."""
        edge = max(1, round(EDGE_SHARE * len(self.rates)))
        inner = range(edge, len(self.rates) - edge)
        slopes = {k: self.smoothed[k + 1] - self.smoothed[k - 1] for k in inner}
        if not slopes or min(slopes.values()) >= 0:
            return None
        return self.rates[min(slopes, key=slopes.__getitem__)]

    @property
    def suggestion(self) -> float | None:
        """A suggested peak: the rate of the fastest fall, but at most a tenth of the rate of the lowest loss.

        The loss is lowest just before it diverges, so the rate there is too high to train at.
        """
        return None if self.steepest is None else min(self.steepest, self.lowest_loss_rate / 10)


def range_test(task: Task, params: Schedule, lowest: float, highest: float, steps: int) -> Sweep:
    """Trains a task at rates that grow by a constant factor from ``lowest`` to ``highest``.

    The model's weights are useless afterwards.

    Args:
        task: freshly built; it is not validated.
        params: batch size, optimiser and precision; its own rates are not used.
        lowest: rate of the first step.
        highest: rate of the last step.
        steps: of the sweep.

    Raises:
        MaskcastError: the loss diverges within the first few steps, or a batch does not fit into memory.
    """
    processes = Processes(params.precision)
    if processes.multi_process:
        raise MaskcastError("a range test runs in one process: set training.processes and training.nodes to 1")
    task.model.to(processes.device)
    optimizer = params.make_optimizer(task.model)
    fused(optimizer, processes.device)
    learner = Learner(task, params, processes, optimizer, params.steps)
    rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
    losses: list[float] = []
    smoothed: list[float] = []
    mean, diverged = 0.0, False
    with processes.arithmetic(), closing(iter(BatchLoader(task, range(steps), processes.device))) as batches:
        for step, batch in track(batches, "range test", total=steps):
            learner.step(step, batch, rate=rates[step])
            try:
                (metrics,) = learner.metrics.read(all_steps=True)
            except MaskcastError:  # the loss is no longer finite
                diverged = True
                break
            losses.append(metrics.loss)
            mean = SMOOTHING * mean + (1 - SMOOTHING) * metrics.loss
            smoothed.append(mean / (1 - SMOOTHING ** len(losses)))  # bias correction
            if step >= MIN_STEPS and _diverges(smoothed):
                diverged = True
                break
    learner.compiled.off()
    if len(losses) < MIN_STEPS:
        raise MaskcastError(
            f"lowest {lowest:g}: the loss diverged within {pluralize(len(losses), 'step')}; choose a "
            "lower one, or precision fp32"
        )
    return Sweep(rates[: len(losses)], losses, smoothed, diverged)


def _diverges(smoothed: list[float]) -> bool:
    """Whether the loss exceeds its minimum too far.

    If that is not positive, the rise is compared with its distance from 0 and from the first loss instead.
    """
    lowest = min(smoothed)
    if lowest > 0:
        return smoothed[-1] > DIVERGENCE_FACTOR * lowest
    return smoothed[-1] - lowest > (DIVERGENCE_FACTOR - 1) * max(smoothed[0] - lowest, -lowest)
