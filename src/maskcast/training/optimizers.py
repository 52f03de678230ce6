"""torch's optimisers, without torch's compiler.

Many methods of ``torch.optim`` are decorated to tell the compiler to stay away. The first call of one imports it
(``torch._dynamo``), which takes two CPU seconds. Nothing is compiled here, so these are the methods as they were
before the decorators.
"""

from inspect import unwrap
from typing import Any

import torch
from torch.optim import Optimizer


class _Eager(Optimizer):
    add_param_group = unwrap(Optimizer.add_param_group)
    load_state_dict = unwrap(Optimizer.load_state_dict)
    state_dict = unwrap(Optimizer.state_dict)
    zero_grad = unwrap(Optimizer.zero_grad)


class AdamW(_Eager, torch.optim.AdamW):
    """AdamW as PyTorch has it."""

    step: Any = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class SGD(_Eager, torch.optim.SGD):
    """SGD as PyTorch has it."""

    step: Any = torch.no_grad()(unwrap(torch.optim.SGD.step))


def fused(optimizer: Optimizer, device: torch.device) -> None:
    """Makes an optimiser of parameters on a GPU take each step in one kernel; others stay as they are."""
    if device.type == "cuda":
        for group in optimizer.param_groups:
            group["fused"], group["foreach"] = True, False


def load_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Loads the state of an optimiser that may have run on another kind of device: how it runs stays its own."""
    own = optimizer.param_groups
    groups = [
        saved | {name: mine[name] for name in ("fused", "foreach") if name in mine}
        for saved, mine in zip(state["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})
