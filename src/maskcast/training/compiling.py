"""Networks compiled for training, where that is possible and pays.

A model names the methods whose inputs have the same shapes in all steps (``fixed_shapes``). Only these are
compiled, and only while they train: validation has other shapes, each of which would be compiled anew. What is
compiled computes the same up to rounding, so that a run on a GPU goes on from a checkpoint of one that was not
compiled, and the other way round. PyTorch keeps what it compiled in ``TORCHINDUCTOR_CACHE_DIR`` for the next run.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from maskcast.errors import MaskcastError, first_line
from maskcast.models.arithmetic import why_not_compiled
from maskcast.progress import say

PAYS = 3000  # steps: compiling takes about a minute, and a step then some ten milliseconds less

Choice = Literal["auto"] | bool


@runtime_checkable
class _KnowsItsShapes(Protocol):
    fixed_shapes: Sequence[str]
    """Dotted names of methods whose inputs have the same few shapes in each training step."""


class Compiled:
    """The compiled parts of a model; none where nothing is compiled.

    Args:
        parts: modules and the names of their methods, which are replaced while they are ``on``.
        compile: makes a function faster, as ``torch.compile`` does.
    """

    def __init__(
        self,
        parts: Sequence[tuple[nn.Module, str]],
        compile: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        self._methods = [(part, name, compile(getattr(part, name))) for part, name in parts]

    def on(self) -> None:
        """Runs the parts compiled from now on."""
        for part, name, method in self._methods:
            setattr(part, name, method)

    def off(self) -> None:
        """Runs the parts as they are written."""
        for part, name, _ in self._methods:
            part.__dict__.pop(name, None)

    def fall_back(self, error: Exception) -> bool:
        """Runs the parts as they are written for good, if they are on and the error is the compiler's; says so.

        Returns:
            Whether that was so, and the step is to be done again.
        """
        if not self._methods or not type(error).__module__.startswith(
            ("torch._dynamo", "torch._inductor", "triton")
        ):
            return False
        self.off()
        self._methods = []
        say(f"training: not compiled: {type(error).__name__}: {first_line(error)}; set training.compile to false")
        return True


def compiled(
    model: nn.Module, choice: Choice, device: torch.device, *, steps: int, alone: bool, recorded: bool
) -> Compiled:
    """Returns the parts of a model that are to be compiled.

    Args:
        model: on the device.
        choice: ``auto`` compiles on a GPU, in a training of many steps on one process that are not recorded; true
            always; false never.
        device: where it trains.
        steps: of the whole training.
        alone: whether one process trains.
        recorded: whether steps are (``models.recorded``): then the compiler has little to save.

    Raises:
        MaskcastError: if the choice is true and it is not possible.
    """
    names = model.fixed_shapes if isinstance(model, _KnowsItsShapes) else ()
    pays = device.type == "cuda" and steps >= PAYS and alone and not recorded and bool(names)
    if choice is False or (choice == "auto" and not pays):
        return Compiled([], torch.compile)
    reason = why_not_compiled(device)
    if not names:
        reason = "no part of this model has the same shapes in each step; no other choice helps"
    if reason is None:
        places = [name.rpartition(".") for name in names]
        return Compiled([(model.get_submodule(part), method) for part, _, method in places], _compiler)
    if choice is True:
        raise MaskcastError(f"training.compile is true and not possible: {reason}, or set it to auto")
    say(f"training: not compiled: {reason}, or set training.compile to false")
    return Compiled([], torch.compile)


def _compiler(function: Callable[..., Any]) -> Callable[..., Any]:
    faster: Callable[..., Any] = torch.compile(function, dynamic=False)
    return faster
