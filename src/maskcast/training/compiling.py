"""Compiles networks for training, where that is possible and saves time.

A model names the methods whose inputs have the same few shapes in all steps (``fixed_shapes``, dotted). Only these
are compiled, and only during training steps: validation has other shapes, each of which would be compiled anew.
Compiled code gives the same results up to rounding. So a compiled run can resume from a checkpoint of one that was
not compiled, and the other way round. PyTorch keeps compiled code in ``TORCHINDUCTOR_CACHE_DIR`` for the next run.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn

from maskcast.errors import MaskcastError, first_line
from maskcast.models.arithmetic import compile_unsupported_reason
from maskcast.progress import say

# steps from which on it saves time: compiling takes a minute and saves about 10 ms a step
MIN_COMPILED_STEPS = 3000

Choice = Literal["auto"] | bool


class CompiledMethods:
    """Switches the compiled methods of a model on and off; without any it does nothing.

    Args:
        parts: pairs of a module and a method name; these methods are replaced while compilation is ``on``.
        compile: returns the compiled version of a function, as ``torch.compile`` does.
    """

    def __init__(
        self,
        parts: Sequence[tuple[nn.Module, str]],
        compile: Callable[[Callable[..., Any]], Callable[..., Any]],
    ) -> None:
        self._methods = [(part, name, compile(getattr(part, name))) for part, name in parts]

    def __len__(self) -> int:
        """Returns the number of methods."""
        return len(self._methods)

    def on(self) -> None:
        """Uses the compiled methods from now on."""
        for part, name, method in self._methods:
            setattr(part, name, method)

    def off(self) -> None:
        """Uses the methods without compilation from now on."""
        for part, name, _ in self._methods:
            part.__dict__.pop(name, None)

    def fall_back(self, error: Exception) -> bool:
        """Switches compilation off for good, with a warning, if it is on and the error is the compiler's.

        Returns:
            Whether it was switched off, so that the step has to be repeated.
        """
        if not self._methods or not type(error).__module__.startswith(
            ("torch._dynamo", "torch._inductor", "triton")
        ):
            return False
        self.off()
        self._methods = []
        say(f"training: not compiled: {type(error).__name__}: {first_line(error)}; set training.compile to false")
        return True


def compile_methods(
    model: nn.Module, choice: Choice, device: torch.device, *, steps: int, single_process: bool, recorded: bool
) -> CompiledMethods:
    """Returns the methods of a model that are to be compiled.

    Args:
        model: on the device.
        choice: ``auto`` compiles on a GPU if training has many steps, one process and no recorded steps; true
            always compiles; false never.
        device: of the training.
        steps: of the whole training.
        single_process: whether there is only one process.
        recorded: whether steps are recorded as CUDA graphs (``models.cuda_graphs``); compiling then saves little.

    Raises:
        MaskcastError: if the choice is true and compilation is not possible.
    """
    names: Sequence[str] = getattr(model, "fixed_shapes", ())
    worthwhile = (
        device.type == "cuda" and steps >= MIN_COMPILED_STEPS and single_process and not recorded and bool(names)
    )
    parts: list[tuple[nn.Module, str]] = []
    if choice is True or (choice == "auto" and worthwhile):
        reason = compile_unsupported_reason(device)
        if not names:
            reason = "no part of this model has the same shapes in each step; no other choice helps"
        if reason is None:
            split_names = [name.rpartition(".") for name in names]
            parts = [(model.get_submodule(part), method) for part, _, method in split_names]
        elif choice is True:
            raise MaskcastError(f"training.compile is true and not possible: {reason}, or set it to auto")
        else:
            say(f"training: not compiled: {reason}, or set training.compile to false")
    return CompiledMethods(parts, _compile_static)


def _compile_static(function: Callable[..., Any]) -> Callable[..., Any]:
    faster: Callable[..., Any] = torch.compile(function, dynamic=False)
    return faster
