"""The gradients of a step as a CUDA graph: hundreds of kernels, launched at once.

PyTorch takes longer to launch the kernels of a small step than a fast GPU to run them. Where each step launches
the same ones, they are recorded once, after some steps that run as they are written, and then replayed on each new
batch. A task says so (``same_each_step``): nothing that its loss does on the host may depend on the step. What
torch's random state decides on the device may: a replay draws from the state as it is then.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskcast.progress import say
from maskcast.training.feeding import changed, tensors_of
from maskcast.training.numbers import Logged

WARM = 3  # steps that run as they are written: libraries choose their kernels

Work = Callable[[], tuple[Tensor, Logged]]


class Recording:
    """Computes gradients by a recorded step, as soon as there is one.

    Args:
        gradients: computes loss, numbers to log and gradients of a batch.
        parameters: those that learn.
        record: records some work; returns what it gave, and a function that does it again into the same memory.
    """

    def __init__(
        self,
        gradients: Callable[[Any], tuple[Tensor, Logged]],
        parameters: Sequence[nn.Parameter],
        record: Callable[[Work], tuple[tuple[Tensor, Logged], Callable[[], None]]],
    ) -> None:
        self._plain, self._parameters, self._record = gradients, parameters, record
        self._left = WARM
        self._replay: Callable[[], None] | None = None

    def gradients(self, batch: Any) -> tuple[Tensor, Logged]:
        """Returns loss and numbers to log; they and the gradients hold until the next call."""
        if self._replay is None:
            self._left -= 1
            if self._left != -1 or not self._begun(batch):
                return self._plain(batch)
        found = tensors_of(batch)
        if [(each.shape, each.dtype) for each in found] != [(each.shape, each.dtype) for each in self._inputs]:
            return self._plain(batch)
        for own, new in zip(self._inputs, found, strict=True):
            own.copy_(new)
        assert self._replay is not None
        self._replay()
        for parameter, grad in zip(self._parameters, self._grads, strict=True):
            parameter.grad = grad
        return self._found

    def _begun(self, batch: Any) -> bool:
        """Records a step, if that is possible."""
        kept = changed(batch, torch.clone)
        self._inputs = tensors_of(kept)
        try:
            self._found, self._replay = self._record(lambda: self._plain(kept))
        except Exception as error:  # of any library: the step as it is written does the same
            first = next(iter(str(error).strip().splitlines()), "")
            say(f"training: a step is not recorded: {type(error).__name__}: {first}")
            self._inputs = []
            for parameter in self._parameters:
                parameter.grad = None
            return False
        self._grads = [parameter.grad for parameter in self._parameters]
        return True
