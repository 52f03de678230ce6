"""The gradients of a step as a CUDA graph: hundreds of kernels, launched at once.

PyTorch takes longer to launch the kernels of a small step than a fast GPU to run them. Where each step launches
the same ones, they are recorded once, after some steps that run as they are written, and then replayed on each new
batch. A task says so (``same_each_step``): nothing that its loss does on the host may depend on the step. What
torch's random state decides on the device may: a replay draws from the state as it is then.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskcast.errors import first_line
from maskcast.progress import say
from maskcast.training.feeding import changed, tensors_of
from maskcast.training.numbers import Logged

WARM = 3  # steps of the same shapes that run as they are written: libraries choose their kernels
MOST = 64  # shapes: each takes memory

Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]
Work = Callable[[], tuple[Tensor, Logged]]


class _Step(NamedTuple):
    inputs: list[Tensor]
    found: tuple[Tensor, Logged]
    replay: Callable[[], None]
    grads: list[Tensor | None]


class Recording:
    """Computes gradients by a recorded step, as soon as there is one for a batch of such shapes.

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
        self._seen: Counter[Shapes] = Counter()
        self._recorded: dict[Shapes, _Step] = {}
        self._possible = True

    def gradients(self, batch: Any) -> tuple[Tensor, Logged]:
        """Returns loss and numbers to log; they and the gradients hold until the next call."""
        shapes = tuple((tuple(each.shape), each.dtype) for each in tensors_of(batch))
        self._seen[shapes] += 1
        if shapes not in self._recorded:
            often = self._seen[shapes] > WARM and len(self._recorded) < MOST
            if not (often and self._possible and self._begun(batch, shapes)):
                return self._plain(batch)
        step = self._recorded[shapes]
        for own, new in zip(step.inputs, tensors_of(batch), strict=True):
            own.copy_(new)
        step.replay()
        for parameter, grad in zip(self._parameters, step.grads, strict=True):
            parameter.grad = grad
        return step.found

    def _begun(self, batch: Any, shapes: Shapes) -> bool:
        """Records a step, if that is possible."""
        kept = changed(batch, torch.clone)
        try:
            found, replay = self._record(lambda: self._plain(kept))
        except Exception as error:  # of any library: the step as it is written does the same
            say(f"training: a step is not recorded: {type(error).__name__}: {first_line(error)}")
            self._possible = False
            for parameter in self._parameters:
                parameter.grad = None
            return False
        grads = [parameter.grad for parameter in self._parameters]
        self._recorded[shapes] = _Step(tensors_of(kept), found, replay, grads)
        return True
