"""Kernels for GPUs in Triton, where PyTorch's own go through memory more often than they have to.

Each module offers functions that take tensors in channels_last and compute what PyTorch's operations do, up to
rounding. ``TRITON_INTERPRET=1`` runs them on a CPU, which is how they are tested there.
"""

import os

import torch

# Triton 3.9 warns until this is said, and 3.10 turns it off; the kernels were measured with fused products
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")


def dot_precision(dtype: torch.dtype) -> str:
    """Returns how products of this type are computed: TF32 holds what bfloat16 does, and float16."""
    return "ieee" if dtype == torch.float32 else "tf32"
