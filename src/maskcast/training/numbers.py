"""The numbers of each step: loss, gradient norm, and what a task logs.

A number of a GPU is there once all kernels before it have run. To read it at once would make the GPU idle while
the next step is launched. So its copy to the host is started, and it is read some steps later, when it has long
arrived. On a CPU it is read at once.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maskcast.errors import MaskcastError

LATE = 2  # steps that the launch of kernels may be ahead of the GPU

Logged = Mapping[str, float | Tensor]


class StepNumbers(NamedTuple):
    """What is known of a step once it is over."""

    step: int
    loss: float
    norm: float
    logged: dict[str, float]


class Numbers:
    """Takes the numbers of each step, and gives them back in the order of the steps.

    Args:
        late: steps for which they may stay where they are; 0 reads them at once.
    """

    def __init__(self, late: int) -> None:
        self._late = late
        self._waiting: deque[_Waiting] = deque()

    def add(self, step: int, loss: Tensor, norm: Tensor, logged: Logged) -> None:
        """Takes the numbers of a step: tensors of one number each, or numbers."""
        late = bool(self._late) and loss.is_cuda
        self._waiting.append(_Waiting(step, list(logged), [loss, norm, *logged.values()], late))

    def read(self, *, all_steps: bool = False) -> Iterator[StepNumbers]:
        """Yields the numbers of the steps that are due, or of all.

        Raises:
            MaskcastError: if the loss or the gradient of a step is not finite.
        """
        while len(self._waiting) > (0 if all_steps else self._late):
            numbers = self._waiting.popleft().read()
            if not (math.isfinite(numbers.loss) and math.isfinite(numbers.norm)):
                raise diverged(numbers.step, f"loss {numbers.loss:g}, gradient norm {numbers.norm:g}")
            yield numbers


def diverged(step: int, seen: str) -> MaskcastError:
    """Returns the error of a training whose numbers left all bounds.

    Args:
        step: the one that they left them in.
        seen: what tells it.
    """
    return MaskcastError(
        f"step {step}: {seen}: training diverged; lower learning_rate, add warmup_steps or use precision fp32"
    )


class _Waiting:
    """The numbers of a step, on their way to the host."""

    def __init__(self, step: int, names: list[str], values: list[float | Tensor], late: bool) -> None:
        self.step, self.names, self.values = step, names, values
        self.arrived: torch.cuda.Event | None = None
        if late:
            tensors = {k: value.detach().double() for k, value in enumerate(values) if isinstance(value, Tensor)}
            device = tensors[0].device
            together = torch.stack([tensor.to(device) for tensor in tensors.values()])
            coming = together.to("cpu", non_blocking=True)  # pinned memory, as PyTorch has it
            for k, value in zip(tensors, coming, strict=True):
                values[k] = value
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> StepNumbers:
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm, *logged = map(float, self.values)
        return StepNumbers(self.step, loss, norm, dict(zip(self.names, logged, strict=True)))
