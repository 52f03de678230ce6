"""What the training loop needs of what is trained."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from maskcast.training.step_metrics import Logged


class Task(ABC):
    """A model with its batches, its loss and its validation."""

    model: "nn.Module"
    """What is trained."""
    fingerprint: str
    """Identifies params, data and code; a checkpoint with another fingerprint is not resumed."""
    monitor: str | None = None
    """The metric of ``validate`` that chooses the best weights (higher is better); None keeps the last."""
    burn_in_steps: int = 0
    """Steps before all data are used, which are no reason to stop early."""

    @property
    def same_each_step(self) -> bool:
        """Whether the loss does the same on the host in each step.

        Then a step on a GPU is recorded once as a CUDA graph (``models/cuda_graphs.py``).
        """
        return False

    @property
    def networks(self) -> Sequence["nn.Module"]:
        """Parts of ``model`` with all its learnable weights; the gradient of each is clipped by its own norm."""
        return [self.model]

    @abstractmethod
    def batch(self, step: int) -> Any:
        """Returns this process's part (``rank_indices``) of a step's batch, on the CPU: pure in (seed, step).

        It runs in another thread or, for a GPU, in forked processes. So it must not use the model, and its changes
        to the task may be lost.
        """

    def loss(self, batch: Any, step: int) -> tuple["Tensor", "Logged"]:
        """Returns the loss of the whole batch (see ``maskcast.distributed``) and numbers to log.

        Numbers should be detached tensors on the device: reading their values would make the GPU wait.
        """
        raise TypeError(f"{type(self).__name__} must implement loss, or chunks and losses of a ChunkedTask")

    def end_step(self, step: int) -> None:
        """Is called once after each step's update, outside of what may be recorded as a CUDA graph."""
        return

    @abstractmethod
    def validate(self) -> dict[str, float]:
        """Returns the scores of ``model`` (in eval mode); processes share the work and get equal scores."""

    def check_rebuilt(self) -> None:
        """Is called before the first step and when weights are kept, to compare them with a network built anew.

        Raises:
            MaskcastError: the network, which may be of another package, keeps something outside its weights.
        """
        return

    def improves_on_start(self) -> bool:
        """Returns whether the model, as last validated, is surely better than the initial weights.

        Only such weights replace the initial ones.
        """
        return True

    def frame_hashes(self, split: Literal["train", "val"]) -> "Sequence[np.ndarray]":
        """Returns for each clip hashes (N,) of frames whose labels it learns from, or that validation scores.

        There are none if it learns without labels; see ``data.trained_frames``.
        """
        return []


class ChunkedTask(Task):
    """A task that gives the loss of a batch in chunks.

    The loop calls backward on each loss before it asks for the next, so memory holds the graph of one chunk only.
    """

    @abstractmethod
    def chunks(self, batch: Any) -> int:
        """Returns how many losses ``losses`` yields for this batch; the number is the same on each process."""

    @abstractmethod
    def losses(self, batch: Any, step: int) -> Iterator[tuple["Tensor", "Logged"]]:
        """Yields for each chunk its share of the loss of the whole batch, and of the numbers to log.

        The shares add up to the loss of the batch: what is a sum over pixels or samples is divided by counts over
        all chunks, not by the chunk's own. State that is passed from one chunk to the next is detached.
        """
