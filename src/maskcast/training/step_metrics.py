"""The numbers of each step: loss, gradient norm and what a task logs.

A number on a GPU is known once all kernels before it have run. Waiting for it would leave the GPU idle while the
next step is launched. So its copy to the host is only started, and it is read ``READ_DELAY`` steps later, when
it has arrived. On a CPU it is read at once.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from maskcast.errors import MaskcastError

STEP_NUMBERS = ("loss", "grad_norm", "learning_rate")  # names of what each step reports besides what a task logs
READ_DELAY = 2  # steps by which the host may be ahead of the GPU

Logged = Mapping[str, float | Tensor]


class StepMetrics(NamedTuple):
    """The numbers of a finished step."""

    step: int
    loss: float
    norm: float
    logged: dict[str, float]


class StepMetricsQueue:
    """A queue of the numbers of each step, in the order of the steps.

    Args:
        delay: steps after which they are read; 0 reads them at once.
    """

    def __init__(self, delay: int) -> None:
        self._delay = delay
        self._pending: deque[_PendingMetrics] = deque()

    def add(self, step: int, loss: Tensor, norm: Tensor, logged: Logged) -> None:
        """Adds the numbers of a step: tensors of one number each, or floats."""
        delay = bool(self._delay) and loss.is_cuda
        self._pending.append(_PendingMetrics(step, list(logged), [loss, norm, *logged.values()], delay))

    def read(self, *, all_steps: bool = False) -> Iterator[StepMetrics]:
        """Yields the numbers of the steps that are due, or with ``all_steps`` of all steps added.

        Raises:
            MaskcastError: if the loss or the gradient of a step is not finite.
        """
        while len(self._pending) > (0 if all_steps else self._delay):
            metrics = self._pending.popleft().read()
            if not (math.isfinite(metrics.loss) and math.isfinite(metrics.norm)):
                evidence = f"loss {metrics.loss:g}, gradient norm {metrics.norm:g}"
                raise divergence_error(metrics.step, evidence) if metrics.step else start_error(evidence)
            yield metrics


def divergence_error(step: int, evidence: str) -> MaskcastError:
    """Returns the error for a training that diverged.

    Args:
        step: the step in which it diverged.
        evidence: the value that shows it, for the message.
    """
    return MaskcastError(
        f"step {step}: {evidence}: training diverged; lower learning_rate, add warmup_steps or use precision fp32"
    )


def start_error(evidence: str) -> MaskcastError:
    """Returns the error for numbers that are not finite before any step has changed the weights."""
    return MaskcastError(
        f"step 0: {evidence}: not finite before the weights change, so not for the learning rate; check the loss "
        "(if it is your own), the values of the inputs and the weights to start from, or use precision fp32"
    )


class _PendingMetrics:
    """The numbers of a step, whose copy to the host has been started."""

    def __init__(self, step: int, names: list[str], values: list[float | Tensor], delay: bool) -> None:
        self.step, self.names, self.values = step, names, values
        self.arrived: torch.cuda.Event | None = None
        if delay:
            tensors = {k: value.detach().double() for k, value in enumerate(values) if isinstance(value, Tensor)}
            device = tensors[0].device
            stacked = torch.stack([tensor.to(device) for tensor in tensors.values()])
            copies = stacked.to("cpu", non_blocking=True)  # PyTorch puts the copy into pinned memory
            for k, value in zip(tensors, copies, strict=True):
                values[k] = value
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> StepMetrics:
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm, *logged = map(float, self.values)
        return StepMetrics(self.step, loss, norm, dict(zip(self.names, logged, strict=True)))
