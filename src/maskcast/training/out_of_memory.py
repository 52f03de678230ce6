"""Which batch fits into the memory of a GPU, estimated from what smaller ones take."""

import gc
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from maskcast.models.recorded import changed

SPARED = 0.05  # part of the memory that is left free: the allocator's blocks are never all in use


class Memory(Protocol):
    """The memory that a training may take."""

    def limit(self) -> int:
        """Returns its bytes."""

    def peak(self, work: Callable[[], None]) -> int:
        """Returns the bytes that some work takes at most, with all that is held meanwhile."""


class Measured:
    """The memory of a GPU, as its allocator counts it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def limit(self) -> int:
        """Returns what this process may take: what is free and what it has, within the fraction it was given."""
        free, total = torch.cuda.mem_get_info(self._device)
        allowed = total * torch.cuda.get_per_process_memory_fraction(self._device)
        return int(min(allowed, free + torch.cuda.memory_reserved(self._device)))

    def peak(self, work: Callable[[], None]) -> int:
        """Returns the most that was allocated."""
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self._device)
        work()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)


def batch_that_fits(work: Callable[[int], None], asked: int, memory: Memory, besides: int = 0) -> int | None:
    """Returns the largest batch that fits by a line through two measured ones, or None where that says nothing.

    Args:
        work: a training step without the optimiser's part, on a batch of so many samples.
        asked: the batch that did not fit.
        memory: what there is.
        besides: bytes that a whole training takes besides.
    """
    large = max(asked // 4, min(4, asked // 2))
    small = large // 2  # of one sample a batch norm has no variance
    if not small:
        return None
    try:
        least, most = (memory.peak(partial(work, size)) for size in (small, large))
        room = (1 - SPARED) * memory.limit() - besides
    except Exception:  # what a task makes of a part of a batch is its own affair: then there is no estimate
        return None
    each = (most - least) / (large - small)
    if each <= 0:
        return None
    fitting = min(int((room - least + small * each) / each), asked - 1)
    return fitting if fitting >= 1 else None


def part_of(batch: Any, size: int, asked: int) -> Any:
    """Returns the first ``size`` samples of a batch of ``asked``, in tensors by their first axis and in lists."""

    def part(tensor: Tensor) -> Tensor:
        return tensor[:size] if tensor.ndim and len(tensor) == asked else tensor

    if isinstance(batch, dict):
        return {name: part_of(each, size, asked) for name, each in batch.items()}
    if isinstance(batch, list) and len(batch) == asked:
        return batch[:size]
    return changed(batch, part)
