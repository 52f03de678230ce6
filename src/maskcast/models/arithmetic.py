"""The floating-point arithmetic of a network, and whether it can be compiled.

These are the rules for each precision in training. Inference follows them as well, except that PyTorch's default
lets float32 convolutions on a GPU use TensorFloat32.

* ``fp32``: everything in float32, also on a GPU: no TensorFloat32, which has 10 bits of mantissa.
* ``bf16``: autocast to bfloat16; weights and sums stay float32. The remaining float32 matrix products may use
  TensorFloat32 on a GPU, which is still more exact than the bfloat16 around them.

On a CPU no flag is set, and ``bf16`` is float32 if the processor has no instructions for bfloat16: emulated, a
step of the U-Net takes eight times as long as in float32.
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

from maskcast.progress import is_main_process, say

_FIXED_SHAPES = ContextVar("fixed", default=False)
MIN_CAPABILITY = (7, 0)  # lowest compute capability that Triton supports


@contextmanager
def arithmetic(device: torch.device, precision: str) -> Iterator[None]:
    """A context with the arithmetic of a precision, in which a GPU searches for its fastest convolutions.

    Args:
        device: where the network runs.
        precision: ``bf16`` or ``fp32``.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, previous = torch.backends.cudnn, _flags()
    try:
        _set_flags("high" if precision == "bf16" else "highest", precision == "bf16")
        cudnn.benchmark = not (cudnn.deterministic or torch.are_deterministic_algorithms_enabled())
        yield
    finally:
        _set_flags(*previous[:2])
        cudnn.benchmark = previous[2]


@contextmanager
def full_float32() -> Iterator[None]:
    """A context in which products of float32 matrices never use TensorFloat32."""
    matmul, convolutions, _ = _flags()
    _set_flags("highest", convolutions)
    try:
        yield
    finally:
        _set_flags(matmul, convolutions)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Returns the autocast context of a precision.

    Args:
        device: where the network runs.
        precision: ``bf16`` or ``fp32``.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=_is_bf16(device, precision))


def performed(device: torch.device, precision: str) -> str:
    """Returns the arithmetic in which a network runs, e.g. ``fp32 on cpu`` if its processor has no bfloat16.

    Args:
        device: where the network runs.
        precision: ``bf16`` or ``fp32``, as asked for.
    """
    return f"{'bf16' if _is_bf16(device, precision) else 'fp32'} on {device.type}"


def _is_bf16(device: torch.device, precision: str) -> bool:
    return precision == "bf16" and (device.type != "cpu" or _cpu_has_bf16())


@cache
def _cpu_has_bf16() -> bool:
    """Whether PyTorch has kernels for bfloat16 on this processor, as oneDNN decides."""
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context without autocast; in a traced graph there is none anyway."""
    if torch.compiler.is_compiling():
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Returns ``x`` in float32, or unchanged if it is float64."""
    return x if x.dtype == torch.float64 else x.float()


def has_kernels(x: torch.Tensor) -> bool:
    """Whether our kernels (``models.kernels``) take this tensor: on a GPU and outside of torch.compile."""
    if not x.is_cuda or x.dtype == torch.float64 or torch.compiler.is_compiling():
        return False
    return _kernels_are_supported(x.device)


@cache
def _kernels_are_supported(device: torch.device) -> bool:
    """Whether our kernels can be compiled; else a line says once why the GPU is slower than it could be."""
    if (reason := compile_unsupported_reason(device)) is None:
        return True
    if is_main_process():
        say(f"{device.type}: without the Triton kernels, so slower: {reason}")
    return False


@contextmanager
def fixed_shapes(device: torch.device) -> Iterator[None]:
    """A context in which, on a GPU, no shape depends on the values of a tensor.

    The host would have to wait for such a size, and a step with one cannot be recorded (``models.cuda_graphs``).
    """
    token = _FIXED_SHAPES.set(device.type == "cuda")
    try:
        yield
    finally:
        _FIXED_SHAPES.reset(token)


def shapes_are_fixed() -> bool:
    """Whether shapes must not depend on the values of tensors: in ``fixed_shapes`` and in a traced graph."""
    return _FIXED_SHAPES.get() or torch.compiler.is_compiling()


@cache
def compile_unsupported_reason(device: torch.device) -> str | None:
    """Returns why ``torch.compile`` cannot work here, with a remedy, or None if it can."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "Triton is not installed; install it (pip install triton)"
        capability = torch.cuda.get_device_capability(device)
        if capability < MIN_CAPABILITY:
            shown, least = (".".join(map(str, pair)) for pair in (capability, MIN_CAPABILITY))
            return f"the GPU's compute capability {shown} is below {least}"
    if not any(map(shutil.which, [os.environ.get("CC", "cc"), "cc", "gcc", "clang"])):
        return "no C compiler found; install gcc"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's headers are not installed; install them (python3-dev)"
    return None


def _flags() -> tuple[str, bool, bool]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 warns of these names, but its compiler refuses the new ones
        tf32 = torch.backends.cudnn.allow_tf32
        return torch.get_float32_matmul_precision(), tf32, torch.backends.cudnn.benchmark


def _set_flags(matmul: str, convolutions: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions
