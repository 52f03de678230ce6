"""What is trained: all that the loop knows of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maskcast.training.numbers import Logged


class BaseTask(Protocol):
    """What all tasks have.

    One that has something to do before each step, once, and outside of what may be recorded, has a method
    ``begin_step(step)``: a running average takes in the weights there.
    """

    fingerprint: str
    """Names params and data: a checkpoint with another one is not continued."""

    @property
    def model(self) -> "nn.Module":
        """What is trained."""

    @property
    def monitor(self) -> str | None:
        """The metric of ``validate`` that picks the best weights (higher is better); None keeps the last."""

    def batch(self, step: int) -> Any:
        """Returns this process's part of a step's CPU tensors (``own_part``), a pure function of (seed, step).

        It runs in another thread or, for a GPU, in forked processes. So it uses nothing of the model, and what it
        changes of the task is lost.
        """

    def validate(self) -> dict[str, float]:
        """Returns the scores of ``model`` as it is, in eval mode; processes share the work and agree on them."""


class PlainTask(BaseTask, Protocol):
    """A task that gives the loss of a batch at once.

    One whose loss does the same on the host in each step says so by an attribute ``same_each_step``; then a GPU's
    step is recorded once (``models/recorded.py``).
    """

    def loss(self, batch: Any, step: int) -> tuple["Tensor", "Logged"]:
        """Returns the loss of the whole batch (see ``maskcast.distributed``) and numbers to log.

        A number is best left a detached tensor on the device: to read it would make a GPU wait.
        """


@runtime_checkable
class ChunkedTask(BaseTask, Protocol):
    """A task that gives the loss of a batch chunk by chunk.

    The loop calls backward on each loss before it asks for the next, so memory holds the graph of one chunk.
    """

    def chunks(self, batch: Any) -> int:
        """Returns how many losses ``losses`` yields of this batch: as many on each process."""

    def losses(self, batch: Any, step: int) -> Iterator[tuple["Tensor", "Logged"]]:
        """Yields of each chunk its share of the loss of the whole batch, and of the numbers to log.

        Shares add up: what a loss divides by is counted over the whole batch. What goes from one chunk to the
        next is detached.
        """


@runtime_checkable
class FromStart(Protocol):
    """What a task has besides whose start is only left for what surely surpasses it."""

    def surpasses_start(self) -> bool:
        """Returns whether the model as it was validated last is to be preferred to the start."""


Task = PlainTask | ChunkedTask


def is_recordable(task: Task) -> bool:
    """Whether a GPU's step of it may be recorded once for all."""
    return bool(getattr(task, "same_each_step", False))
