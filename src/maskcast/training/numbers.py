"""The numbers of each step: loss, gradient norm and what a task logs.

A number on a GPU is known once all kernels before it have run. Waiting for it would leave the GPU idle while the
next step is launched. So its copy to the host is only started, and it is read ``LATE`` steps later, when it has
arrived. On a CPU it is read at once.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maskcast.errors import MaskcastError

LATE = 2  # steps by which the host may be ahead of the GPU

Logged = Mapping[str, float | Tensor]


class StepNumbers(NamedTuple):
    """The numbers of a finished step."""

    step: int
    loss: float
    norm: float
    logged: dict[str, float]


class Numbers:
    """A queue of the numbers of each step, in the order of the steps.

    Args:
        late: steps after which they are read; 0 reads them at once.
    """

    def __init__(self, late: int) -> None:
        self._late = late
        self._waiting: deque[_Waiting] = deque()

    def add(self, step: int, loss: Tensor, norm: Tensor, logged: Logged) -> None:
        """Adds the numbers of a step: tensors of one number each, or floats."""
        late = bool(self._late) and loss.is_cuda
        self._waiting.append(_Waiting(step, list(logged), [loss, norm, *logged.values()], late))

    def read(self, *, all_steps: bool = False) -> Iterator[StepNumbers]:
        """Yields the numbers of the steps that are due, or with ``all_steps`` of all steps added.

        Raises:
            MaskcastError: if the loss or the gradient of a step is not finite.
        """
        while len(self._waiting) > (0 if all_steps else self._late):
            numbers = self._waiting.popleft().read()
            if not (math.isfinite(numbers.loss) and math.isfinite(numbers.norm)):
                raise diverged(numbers.step, f"loss {numbers.loss:g}, gradient norm {numbers.norm:g}")
            yield numbers


def diverged(step: int, seen: str) -> MaskcastError:
    """Returns the error for a training that diverged.

    Args:
        step: the step in which it diverged.
        seen: the value that shows it, for the message.
    """
    return MaskcastError(
        f"step {step}: {seen}: training diverged; lower learning_rate, add warmup_steps or use precision fp32"
    )


class _Waiting:
    """The numbers of a step, whose copy to the host has been started."""

    def __init__(self, step: int, names: list[str], values: list[float | Tensor], late: bool) -> None:
        self.step, self.names, self.values = step, names, values
        self.arrived: torch.cuda.Event | None = None
        if late:
            tensors = {k: value.detach().double() for k, value in enumerate(values) if isinstance(value, Tensor)}
            device = tensors[0].device
            together = torch.stack([tensor.to(device) for tensor in tensors.values()])
            coming = together.to("cpu", non_blocking=True)  # PyTorch puts the copy into pinned memory
            for k, value in zip(tensors, coming, strict=True):
                values[k] = value
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> StepNumbers:
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm, *logged = map(float, self.values)
        return StepNumbers(self.step, loss, norm, dict(zip(self.names, logged, strict=True)))
