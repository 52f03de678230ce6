"""Measures time, work and memory on a GPU, or on the CPU if there is none."""

import gc
import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode

CARD = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CARD else "cpu")
WARM_UP, REPEATS = 3, 3
ALLOCATIONS = ("aten::empty", "aten::new_empty", "aten::detach", "aten::_local_scalar_dense")


class Work(NamedTuple):
    """The minimum cost of a call, from its operations.

    Args:
        flops: floating-point operations of convolutions and matrix products.
        traffic: bytes, if each operation reads its inputs once and writes its outputs once.
    """

    flops: float
    traffic: float


class Ceilings(NamedTuple):
    """Peak rates of this GPU: FLOP/s of a large matrix product, bytes/s of a copy (read + written)."""

    fp32: float
    tf32: float
    bf16: float
    copy: float


def wait() -> None:
    """Waits until the GPU is idle."""
    if CARD:
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object], budget: float, pick: Callable[[list[float]], float] = median) -> float:
    """Returns the seconds of one call: the median over series of calls that take ``budget`` in total."""
    for _ in range(WARM_UP if budget else 0):
        call()
    wait()
    start = time.perf_counter()
    call()
    wait()
    once = time.perf_counter() - start
    count = min(200, int(budget / REPEATS / max(once, 1e-6)))
    rows = [] if count else [once]
    for _ in range(REPEATS if count else 0):
        start = time.perf_counter()
        for _ in range(count):
            call()
        wait()
        rows.append((time.perf_counter() - start) / count)
    return pick(rows)


def on_device(batch: Any) -> Any:
    """Returns a batch with all tensors on the device."""
    return tree_map(lambda part: part.to(DEVICE) if isinstance(part, torch.Tensor) else part, batch)


def forget() -> None:
    """Frees memory of earlier measurements and resets the peak."""
    if CARD:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib() -> float | None:
    """Returns the peak memory of tensors since ``forget``; None without a GPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if CARD else None


def allow_tf32(convolutions: bool, products: bool) -> None:
    """Sets which fp32 operations may use TF32; PyTorch's default is convolutions only."""
    torch.set_float32_matmul_precision("high" if products else "highest")
    torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def pytorch_kernels() -> Iterator[None]:
    """Uses only PyTorch's own kernels inside the block."""
    try:
        arithmetic: Any = importlib.import_module("maskcast.models.arithmetic")
    except ModuleNotFoundError:
        yield
        return
    found = arithmetic.compile_unsupported_reason
    try:
        arithmetic.compile_unsupported_reason = lambda device: "left out here"
        yield
    finally:
        arithmetic.compile_unsupported_reason = found


def work_of(call: Callable[[], object]) -> Work:
    """Returns the work of one call; views and allocations count nothing."""
    with pytorch_kernels(), FlopCounterMode(display=False) as counter, _Traffic() as traffic:
        call()
    return Work(float(counter.get_total_flops()), traffic.bytes)


class _Traffic(TorchDispatchMode):
    bytes = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        views = any(each.alias_info is not None and not each.alias_info.is_write for each in func._schema.returns)
        if not views and not func._schema.name.startswith(ALLOCATIONS):
            tensors = {id(t): t for t in tree_leaves((args, kwargs, out)) if isinstance(t, torch.Tensor)}
            self.bytes += sum(min(t.numel() * t.itemsize, t.untyped_storage().nbytes()) for t in tensors.values())
        return out


def ceilings(toy: bool) -> Ceilings:
    """Measures the GPU's peak rates."""
    size = 256 if toy else 8192

    budget = 0.0 if toy else 0.3

    def product(dtype: torch.dtype) -> float:
        a, b = (torch.randn(size, size, device=DEVICE).to(dtype) for _ in range(2))
        return 2 * size**3 / seconds_of(lambda: a @ b, budget, min)

    allow_tf32(convolutions=False, products=False)
    fp32 = product(torch.float32)
    allow_tf32(convolutions=True, products=True)
    tf32 = product(torch.float32)
    source = torch.randint(0, 255, (2**20 if toy else 2**31,), dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / seconds_of(lambda: target.copy_(source), budget, min)
    found = Ceilings(fp32, tf32, product(torch.bfloat16), copy)
    allow_tf32(convolutions=True, products=False)
    forget()
    return found
