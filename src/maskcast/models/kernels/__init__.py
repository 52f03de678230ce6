"""Kernels for GPUs in Triton, where PyTorch's own go through memory more often than they have to.

Each module offers functions that take tensors in channels_last and compute what PyTorch's operations do, up to
rounding. ``TRITON_INTERPRET=1`` runs them on a CPU, which is how they are tested there.
"""
