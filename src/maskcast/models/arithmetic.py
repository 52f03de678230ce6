"""By which arithmetic a network runs, and whether it can be compiled.

The rules of precision in training. They hold in inference, but for PyTorch's default on a GPU: there convolutions
in float32 may use TensorFloat32.

* ``fp32``: all in float32, on a GPU as on a CPU: no TensorFloat32, which has 10 bits of mantissa.
* ``bf16``: autocast; weights and sums stay float32. What float32 is left of products of matrices may use
  TensorFloat32 on a GPU, where it is more exact than its neighbours in bfloat16.

On a CPU nothing is set.
"""

import importlib.util
import os
import shutil
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import torch

_FIXED = ContextVar("fixed", default=False)
OLDEST = (7, 0)  # compute capability that Triton can write for


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """Computes by the rules of a precision inside the block, and lets a GPU look for its fastest convolutions.

    Args:
        device: where.
        precision: ``bf16`` or ``fp32``.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, before = torch.backends.cudnn, _flags()
    try:
        _set_flags("high" if precision == "bf16" else "highest", precision == "bf16")
        cudnn.benchmark = not (cudnn.deterministic or torch.are_deterministic_algorithms_enabled())
        yield
    finally:
        _set_flags(*before[:2])
        cudnn.benchmark = before[2]


@contextmanager
def whole_float32() -> Iterator[None]:
    """Inside the block products of float32 matrices take no TensorFloat32, by either rule."""
    matmul, convolutions, _ = _flags()
    _set_flags("highest", convolutions)
    try:
        yield
    finally:
        _set_flags(matmul, convolutions)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context whose operations run in the types of their inputs; a traced graph never has others."""
    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Returns ``x`` in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def has_kernels(x: torch.Tensor) -> bool:
    """Whether kernels of ours (``models.kernels``) take this tensor: on a GPU, and outside PyTorch's compiler."""
    if not x.is_cuda or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return False
    return why_not_compiled(x.device) is None


@contextmanager
def fixed_shapes(device: torch.device) -> Iterator[None]:
    """Inside the block no shape depends on what is in a tensor, if it is on a GPU.

    There a size would be waited for, and a step with one cannot be recorded (``models.recorded``).
    """
    token = _FIXED.set(device.type == "cuda")
    try:
        yield
    finally:
        _FIXED.reset(token)


def shapes_are_fixed() -> bool:
    """Whether no shape may depend on what is in a tensor: in ``fixed_shapes``, and in a traced graph."""
    return _FIXED.get() or torch.compiler.is_compiling()


@cache
def why_not_compiled(device: torch.device) -> str | None:
    """Returns what ``torch.compile`` and Triton lack here, in words with a remedy, or None if they can work."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed; install it (pip install triton)"
        capability = torch.cuda.get_device_capability(device)
        if capability < OLDEST:
            return f"the GPU's compute capability {capability[0]}.{capability[1]} is below {OLDEST[0]}.{OLDEST[1]}"
    if not any(map(shutil.which, [os.environ.get("CC", "cc"), "cc", "gcc", "clang"])):
        return "there is no C compiler; install gcc"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers are not installed; install them (python3-dev)"
    return None


def _flags() -> tuple[str, bool, bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 and later have other names, which its own compiler refuses
        tf32 = torch.backends.cudnn.allow_tf32
        return torch.get_float32_matmul_precision(), tf32, torch.backends.cudnn.benchmark


def _set_flags(matmul: str, convolutions: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions
