"""Estimates which batch size fits into the memory of a GPU, from the memory that smaller batches take."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from maskcast.models.cuda_graphs import map_tensors

RESERVED_SHARE = 0.05  # share of the memory that is left free, because the allocator's blocks are never all in use


class GpuMemory:
    """The memory of a GPU, as its allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def limit(self) -> int:
        """Returns the bytes that are free or this process's, within the memory fraction it was given."""
        free, total = torch.cuda.mem_get_info(self._device)
        allowed = total * torch.cuda.get_per_process_memory_fraction(self._device)
        return int(min(allowed, free + torch.cuda.memory_reserved(self._device)))

    def peak(self, work: Callable[[], None]) -> int:
        """Returns the peak of allocated bytes while ``work`` runs, including all that was allocated before."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)


def estimate_batch_size(
    step: Callable[[int], None], batch_size: int, memory: GpuMemory, reserved: int = 0
) -> int | None:
    """Returns the largest batch size that fits, by a line through two measured ones; None without an estimate.

    Args:
        step: runs a training step, without the optimiser's part, on a batch of the given size.
        batch_size: the batch size that did not fit.
        memory: measures.
        reserved: bytes that a training needs in addition.
    """
    large = max(batch_size // 4, min(4, batch_size // 2))
    small = large // 2  # not 1: batch norm has no variance of a single sample
    if not small:
        return None
    try:
        least, most = (memory.peak(partial(step, size)) for size in (small, large))
        available = (1 - RESERVED_SHARE) * memory.limit() - reserved
    except Exception:  # a task may not accept a part of a batch: then there is no estimate
        return None
    bytes_per_sample = (most - least) / (large - small)
    if bytes_per_sample <= 0:
        return None
    estimate = min(int((available - least + small * bytes_per_sample) / bytes_per_sample), batch_size - 1)
    return estimate if estimate >= 1 else None


def take_samples(batch: Any, size: int, batch_size: int) -> Any:
    """Returns the first ``size`` samples of a batch of ``batch_size``: rows of tensors and items of lists."""

    def part(tensor: Tensor) -> Tensor:
        return tensor[:size] if tensor.ndim and len(tensor) == batch_size else tensor

    if isinstance(batch, dict):
        return {name: take_samples(each, size, batch_size) for name, each in batch.items()}
    if isinstance(batch, list) and len(batch) == batch_size:
        return batch[:size]
    return map_tensors(batch, part)
