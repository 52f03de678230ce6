"""Estimates which batch size fits into the memory of a GPU, from the memory that smaller batches take."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from maskcast.models.recorded import changed

SPARED = 0.05  # share of the memory that is left free, because the allocator's blocks are never all in use


class Memory(Protocol):
    """Measures the memory that a training may take, and takes."""

    def limit(self) -> int:
        """Returns the limit in bytes."""

    def peak(self, work: Callable[[], None]) -> int:
        """Returns the peak of allocated bytes while ``work`` runs, including all that was allocated before."""


class Measured:
    """The memory of a GPU, as its allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def limit(self) -> int:
        """Returns the bytes that are free or this process's, within the memory fraction it was given."""
        free, total = torch.cuda.mem_get_info(self._device)
        allowed = total * torch.cuda.get_per_process_memory_fraction(self._device)
        return int(min(allowed, free + torch.cuda.memory_reserved(self._device)))

    def peak(self, work: Callable[[], None]) -> int:
        """Returns the peak of allocated bytes."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)


def batch_that_fits(work: Callable[[int], None], asked: int, memory: Memory, besides: int = 0) -> int | None:
    """Returns the largest batch size that fits, by a line through two measured ones; None without an estimate.

    Args:
        work: runs a training step, without the optimiser's part, on a batch of the given size.
        asked: the batch size that did not fit.
        memory: measures.
        besides: bytes that a training needs in addition.
    """
    large = max(asked // 4, min(4, asked // 2))
    small = large // 2  # not 1: batch norm has no variance of a single sample
    if not small:
        return None
    try:
        least, most = (memory.peak(partial(work, size)) for size in (small, large))
        room = (1 - SPARED) * memory.limit() - besides
    except Exception:  # a task may not accept a part of a batch: then there is no estimate
        return None
    each = (most - least) / (large - small)
    if each <= 0:
        return None
    fitting = min(int((room - least + small * each) / each), asked - 1)
    return fitting if fitting >= 1 else None


def part_of(batch: Any, size: int, asked: int) -> Any:
    """Returns the first ``size`` samples of a batch of ``asked``: rows of tensors and items of lists."""

    def part(tensor: Tensor) -> Tensor:
        return tensor[:size] if tensor.ndim and len(tensor) == asked else tensor

    if isinstance(batch, dict):
        return {name: part_of(each, size, asked) for name, each in batch.items()}
    if isinstance(batch, list) and len(batch) == asked:
        return batch[:size]
    return changed(batch, part)
