"""Protocols of a task: what the training loop needs of what is trained."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from maskcast.training.step_metrics import Logged


class BaseTask(Protocol):
    """The part of the protocol that all tasks share.

    A task may have a method ``begin_step(step)``, which is called once before each step, outside of what may be
    recorded as a CUDA graph. Running averages of the weights are updated there.
    """

    fingerprint: str
    """Identifies params and data; a checkpoint with another fingerprint is not resumed."""

    @property
    def model(self) -> "nn.Module":
        """What is trained."""

    @property
    def monitor(self) -> str | None:
        """The metric of ``validate`` that chooses the best weights (higher is better); None keeps the last."""

    def batch(self, step: int) -> Any:
        """Returns this process's part (``rank_indices``) of a step's batch, on the CPU: pure in (seed, step).

        It runs in another thread or, for a GPU, in forked processes. So it must not use the model, and its changes
        to the task may be lost.
        """

    def validate(self) -> dict[str, float]:
        """Returns the scores of ``model`` (in eval mode); processes share the work and get equal scores."""


class PlainTask(BaseTask, Protocol):
    """A task that gives the loss of a whole batch at once.

    If its loss does the same on the host in each step, an attribute ``same_each_step`` is true; then a step on a
    GPU is recorded once as a CUDA graph (``models/cuda_graphs.py``).
    """

    def loss(self, batch: Any, step: int) -> tuple["Tensor", "Logged"]:
        """Returns the loss of the whole batch (see ``maskcast.distributed``) and numbers to log.

        Numbers should be detached tensors on the device: reading their values would make the GPU wait.
        """


@runtime_checkable
class ChunkedTask(BaseTask, Protocol):
    """A task that gives the loss of a batch in chunks.

    The loop calls backward on each loss before it asks for the next, so memory holds the graph of one chunk only.
    """

    def chunks(self, batch: Any) -> int:
        """Returns how many losses ``losses`` yields for this batch; the number is the same on each process."""

    def losses(self, batch: Any, step: int) -> Iterator[tuple["Tensor", "Logged"]]:
        """Yields for each chunk its share of the loss of the whole batch, and of the numbers to log.

        The shares add up to the loss of the batch, so each is normalised by counts over the whole batch. State
        that is passed from one chunk to the next is detached.
        """


@runtime_checkable
class StartComparison(Protocol):
    """The additional method of a task whose initial weights are only replaced by surely better ones."""

    def improves_on_start(self) -> bool:
        """Returns whether the model, as last validated, is surely better than the initial weights."""


Task = PlainTask | ChunkedTask


def is_recordable(task: Task) -> bool:
    """Whether its step on a GPU may be recorded as a CUDA graph."""
    return bool(getattr(task, "same_each_step", False))
