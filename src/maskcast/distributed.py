"""Several processes train one model: each takes its part of every batch, and sums go over all of them.

The rule: every process computes the loss of the *whole* batch, from its own part and ``all_sum``. Backward through
``all_sum`` gives each process the gradient of the sum of all processes' (equal) losses, and DDP takes the mean of
these, which is the gradient that one process would have found, whatever the loss divides by. Outside a process
group there is one process: ``all_sum`` returns its argument.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


def world_size() -> int:
    """Returns the number of processes that train together."""
    return distributed.get_world_size() if _grouped() else 1


def rank() -> int:
    """Returns the number of this process among them; the first is 0."""
    return distributed.get_rank() if _grouped() else 0


def own_part(count: int) -> range:
    """Returns which of ``count`` samples are this process's: every ``world_size``-th, so that parts stay even."""
    return range(rank(), count, world_size())


def all_sum(x: Tensor) -> Tensor:
    """Returns the sum of ``x`` over all processes; differentiable."""
    return _AllSum.apply(x) if _grouped() else x


def all_means(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Returns the sum of the means of some tensors over all processes, each times its weight; differentiable.

    Numbers are filled in and not sent, as for a recorded step they must be; the mean of nothing is 0.
    """
    sums = all_sum(torch.stack([weight * values.sum() for weight, values in terms]))
    counts = all_sum(torch.stack([torch.full_like(sums[0], values.numel()) for _, values in terms]))
    return (sums / counts.clamp_min(1)).sum()


def all_counts(counts: np.ndarray, model: nn.Module) -> np.ndarray:
    """Returns the sum of integer counts over all processes; NCCL adds only where ``model`` is."""
    total = all_sum(torch.from_numpy(counts).to(next(model.parameters()).device))
    return total.cpu().numpy()


def all_items(items: list[T]) -> list[T]:
    """Returns the items of all processes, on each of them: the first process's first."""
    if not _grouped():
        return items
    parts: list[Any] = [None] * world_size()
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def average_gradients(model: nn.Module) -> None:
    """Takes the mean of each gradient over all processes.

    For several backward passes a step; for one, DDP does it while the pass still runs. DDP can leave out passes,
    but not with a static graph, and without one it warns where all weights take part.
    """
    if not _grouped():
        return
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    means = all_sum(torch.cat([grad.flatten() for grad in grads])) / world_size()
    for grad, mean in zip(grads, means.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def from_first(x: T) -> T:
    """Returns the first process's ``x``, on each of them."""
    if not _grouped():
        return x
    held: list[Any] = [x]
    distributed.broadcast_object_list(held)
    return held[0]


def join_batch_norms(model: nn.Module) -> None:
    """Makes every BatchNorm of ``model`` take its statistics over all processes; names and weights stay.

    Children of ``model`` that learn nothing are left as they are: a slow copy takes statistics of its own.
    """
    for name, child in model.named_children():
        if not any(parameter.requires_grad for parameter in child.parameters()):
            continue
        if next(child.parameters()).device.type == "cuda":
            # timm's knows its own BatchNorms, which have an activation inside, as well as torch's
            library: Any = sys.modules.get("timm.layers", nn.SyncBatchNorm)
            setattr(model, name, library.convert_sync_batchnorm(child))
            continue
        for module in child.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.forward = partial(_joint_batch_norm, module)  # type: ignore[method-assign]


def _joint_batch_norm(module: Any, x: Tensor) -> Tensor:
    """Does on CPUs what nn.SyncBatchNorm does on GPUs; it has no kernel for CPUs."""
    if not module.training:
        return type(module).forward(module, x)
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    own_count = wide.new_full((1,), x.numel() // x.shape[1])
    total, count = all_sum(torch.cat([wide.sum(axes), own_count])).split([x.shape[1], 1])
    mean = total / count
    centred = wide - mean.view(shape)
    variance = all_sum(centred.square().sum(axes)) / count
    with torch.no_grad():
        module.num_batches_tracked += 1
        module.running_mean.lerp_(mean, module.momentum)
        module.running_var.lerp_(variance * count / (count - 1), module.momentum)
    scaled = centred * (variance + module.eps).rsqrt().view(shape)
    out = (scaled * module.weight.view(shape) + module.bias.view(shape)).to(x.dtype)
    return module.act(module.drop(out)) if hasattr(module, "act") else out  # timm's


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _AllSum.forward(ctx, grads[0])


def _grouped() -> bool:
    return distributed.is_available() and distributed.is_initialized()
