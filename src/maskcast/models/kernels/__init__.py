"""Kernels for GPUs in Triton, where PyTorch's own go through memory more often than they have to.

Each module offers functions that take tensors in channels_last and compute what PyTorch's operations do, up to
rounding. ``TRITON_INTERPRET=1`` runs them on a CPU, which is how they are tested there.
"""

import torch


def dot_precision(dtype: torch.dtype) -> str:
    """Returns how products of this type are computed: TF32 holds what bfloat16 does, and float16."""
    return "ieee" if dtype == torch.float32 else "tf32"
