"""Data-parallel training: each process has a part of every batch, and sums are taken over all processes.

Rule: every process computes the loss of the *whole* batch, from its own part and ``all_sum``. The backward pass
through ``all_sum`` gives each process the gradient of the sum of all (equal) losses, and DDP averages these
gradients. The result is the gradient that a single process would compute, whatever the loss is divided by. Outside
a process group, there is one process and ``all_sum`` returns its argument.

A loss that comes in chunks of the batch is divided by counts over the whole batch, too: over all processes and all
chunks (``models.segmentation.losses.Part``).

Two losses are means over the processes instead, because what they are divided by is not known: that of another
package (``models.segmentation.losses.CustomLoss``) and that of the detector.
"""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from maskcast.seed import seed_libraries

T = TypeVar("T")


def world_size() -> int:
    """Returns the number of processes that train together."""
    return distributed.get_world_size() if _is_distributed() else 1


def rank() -> int:
    """Returns the rank of this process; the first process has rank 0."""
    return distributed.get_rank() if _is_distributed() else 0


def rank_indices(count: int) -> range:
    """Returns which of ``count`` samples are this process's: every ``world_size``-th, so that parts are even."""
    return range(rank(), count, world_size())


def seed_own_draws(seed: int, step: int) -> None:
    """Seeds what the network of this process draws in a step, such as dropout, differently from other processes.

    Each process starts a step with the state of (seed, step), and the first, and so a single one, keeps it.
    """
    if rank():
        seed_libraries(seed, step, rank())


def all_sum(x: Tensor) -> Tensor:
    """Returns the sum of ``x`` over all processes; differentiable."""
    return _AllSum.apply(x) if _is_distributed() else x


def all_means(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    """Returns the weighted sum of the means of several tensors over all processes; differentiable.

    Counts are filled in on the device, not copied from the host, as recorded steps require. The mean of nothing is
    0.
    """
    sums = all_sum(torch.stack([weight * values.sum() for weight, values in terms]))
    counts = all_sum(torch.stack([torch.full_like(sums[0], values.numel()) for _, values in terms]))
    return (sums / counts.clamp_min(1)).sum()


def all_reduce_counts(counts: np.ndarray, device: torch.device) -> np.ndarray:
    """Returns the sum of integer counts over all processes; NCCL requires them on the device of the model."""
    return all_sum(torch.from_numpy(counts).to(device)).cpu().numpy()


def all_gather(items: list[T]) -> list[T]:
    """Returns the items of all processes, in the order of ranks, on each process."""
    if not _is_distributed():
        return items
    parts: list[Any] = [None] * world_size()
    distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]


def average_gradients(model: nn.Module) -> None:
    """Averages each gradient over all processes.

    Used if a step has several backward passes; for a single one, DDP does it during the pass. DDP's `no_sync` does
    not work with a static graph; without a static graph, DDP warns if all weights are used.
    """
    if not _is_distributed():
        return
    grads = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    means = all_sum(torch.cat([grad.flatten() for grad in grads])) / world_size()
    for grad, mean in zip(grads, means.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def broadcast(x: T) -> T:
    """Returns the first process's ``x`` on each process."""
    if not _is_distributed():
        return x
    held: list[Any] = [x]
    distributed.broadcast_object_list(held)
    return held[0]


def sync_batch_norms(model: nn.Module) -> None:
    """Makes each BatchNorm of ``model`` compute its statistics over all processes; names and weights stay.

    The ``average`` of ``model``, if it has one, is skipped: an averaged copy computes its own statistics.
    """
    average, on_gpu = getattr(model, "average", None), any(p.is_cuda for p in model.parameters())
    for name, child in model.named_children():
        if child is average:
            continue
        if on_gpu:
            # timm converts its own BatchNorms, which contain an activation, as well as torch's
            library: Any = sys.modules.get("timm.layers", nn.SyncBatchNorm)
            setattr(model, name, library.convert_sync_batchnorm(child))
            continue
        for module in child.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.forward = partial(_joint_batch_norm, module)  # type: ignore[method-assign]


def _joint_batch_norm(module: Any, x: Tensor) -> Tensor:
    """Computes on CPUs what nn.SyncBatchNorm, which has no CPU kernel, computes on GPUs."""
    if not module.training:
        return type(module).forward(module, x)
    axes, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    own_count = wide.new_full((1,), x.numel() // x.shape[1])
    total, count = all_sum(torch.cat([wide.sum(axes), own_count])).split([x.shape[1], 1])
    mean = total / count
    centred = wide - mean.view(shape)
    variance = all_sum(centred.square().sum(axes)) / count
    if module.track_running_stats:
        with torch.no_grad():
            module.num_batches_tracked += 1
            share = 1 / int(module.num_batches_tracked) if module.momentum is None else module.momentum
            module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
            module.running_var.lerp_((variance * count / (count - 1)).to(module.running_var.dtype), share)
    out = centred * (variance + module.eps).rsqrt().view(shape)
    if module.affine:
        out = out * module.weight.view(shape) + module.bias.view(shape)
    out = out.to(x.dtype)
    return module.act(module.drop(out)) if hasattr(module, "act") else out  # for timm's


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return _AllSum.forward(ctx, grads[0])


def _is_distributed() -> bool:
    return distributed.is_available() and distributed.is_initialized()
