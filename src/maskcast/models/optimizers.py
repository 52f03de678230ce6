"""PyTorch's optimisers, without the import of its compiler.

Many methods of ``torch.optim`` are decorated to exclude them from compilation. The first call of one imports the
compiler (``torch._dynamo``), which takes two CPU seconds and 150 MB. Optimisers are not compiled here, so the
undecorated methods are used.
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
    """PyTorch's AdamW."""

    step: Any = torch.no_grad()(unwrap(torch.optim.AdamW.step))


class SGD(_Eager, torch.optim.SGD):
    """PyTorch's SGD."""

    step: Any = torch.no_grad()(unwrap(torch.optim.SGD.step))


class LBFGS(_Eager, torch.optim.LBFGS):
    """PyTorch's L-BFGS."""

    step: Any = torch.no_grad()(unwrap(torch.optim.LBFGS.step))
