"""Sums of the rows of a table at the class ids of a patch: a product with one-hot classes, which are never stored.

``F.embedding_bag`` sorts all pixels for its gradient, which takes ten times as long. Nothing is added atomically.

Shapes: N pictures, S x S pixels of a patch, h rows and w columns of patches, K classes, C channels.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskcast.models.kernels import dot_precision

PATCHES = 64  # of a program at a time
CHANNELS = 64  # likewise, at most
PROGRAMS = 32  # that share the patches of a place, for the gradient; each has a table of its own
NUMBERS = 2**24  # of these tables together


@triton.jit
def _first_pixels(patch, rows, columns, S: tl.constexpr):
    """Returns the index of the first pixel of each patch."""
    picture = (patch // (rows * columns)).to(tl.int64)
    i, j = patch // columns % rows, patch % columns
    return (picture * rows + i) * S * columns * S + j * S


@triton.jit
def sums_kernel(
    ids,
    table,
    bias,
    out,
    patches,
    rows,
    columns,
    S: tl.constexpr,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    DOT: tl.constexpr,
):
    """Writes the features of some patches."""
    patch = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    c, k = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_K)
    first = _first_pixels(patch, rows, columns, S)
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for place in range(S * S):
        pixel = first + (place // S) * columns * S + place % S
        class_id = tl.load(ids + pixel, mask=patch < patches, other=255).to(tl.int32)
        pointers = table + (place * K + k)[:, None] * C + c[None]
        vectors = tl.load(pointers, mask=(k < K)[:, None] & (c < C)[None], other=0.0).to(tl.float32)
        total += tl.dot((class_id[:, None] == k[None]).to(tl.float32), vectors, input_precision=DOT)
    total += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None]
    out_pointers = out + patch.to(tl.int64)[:, None] * C + c[None]
    tl.store(out_pointers, total.to(out.dtype.element_ty), mask=(patch < patches)[:, None] & (c < C)[None])


@triton.jit
def gradient_kernel(
    ids,
    grad,
    partials,
    patches,
    rows,
    columns,
    S: tl.constexpr,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    C: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    DOT: tl.constexpr,
):
    """Stores the sum of the gradients of some patches by the class at one place of them."""
    place, program = tl.program_id(0), tl.program_id(1)
    c, k = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C), tl.arange(0, BLOCK_K)
    total = tl.zeros((BLOCK_K, BLOCK_C), tl.float32)
    for block in range(program, tl.cdiv(patches, BLOCK_P), tl.num_programs(1)):
        patch = block * BLOCK_P + tl.arange(0, BLOCK_P)
        pixel = _first_pixels(patch, rows, columns, S) + (place // S) * columns * S + place % S
        class_id = tl.load(ids + pixel, mask=patch < patches, other=255).to(tl.int32)
        mask = (patch < patches)[:, None] & (c < C)[None]
        patch_grad = tl.load(grad + patch.to(tl.int64)[:, None] * C + c[None], mask=mask, other=0.0).to(tl.float32)
        total += tl.dot((k[:, None] == class_id[None]).to(tl.float32), patch_grad, input_precision=DOT)
    out = partials + ((program * S * S + place) * K + k)[:, None] * C + c[None]
    tl.store(out, total, mask=(k < K)[:, None] & (c < C)[None])


class _PatchSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids_NHW: Tensor, table_SKC: Tensor, bias: Tensor, stride: int) -> Tensor:
        ids_NHW, table_SKC = ids_NHW.contiguous(), table_SKC.contiguous()
        pictures, height, width = ids_NHW.shape
        rows, columns, channels = height // stride, width // stride, table_SKC.shape[2]
        patches, blocks = pictures * rows * columns, _blocks(table_SKC, stride)
        out = table_SKC.new_empty((pictures, rows, columns, channels))
        sums_kernel[(triton.cdiv(patches, PATCHES), triton.cdiv(channels, blocks["BLOCK_C"]))](
            ids_NHW, table_SKC, bias, out, patches, rows, columns, **blocks
        )
        ctx.stride = stride
        ctx.save_for_backward(ids_NHW, table_SKC, bias)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        ids_NHW, table_SKC, bias = ctx.saved_tensors
        grad_NhwC = grads[0].permute(0, 2, 3, 1).contiguous()
        pictures, rows, columns, channels = grad_NhwC.shape
        blocks, places = _blocks(table_SKC, ctx.stride), len(table_SKC)
        programs = max(1, min(PROGRAMS, NUMBERS // table_SKC.numel()))
        partials = torch.empty((programs, *table_SKC.shape), dtype=torch.float32, device=ids_NHW.device)
        gradient_kernel[(places, programs, triton.cdiv(channels, blocks["BLOCK_C"]))](
            ids_NHW, grad_NhwC, partials, pictures * rows * columns, rows, columns, **blocks
        )
        grad_bias = grad_NhwC.sum((0, 1, 2), dtype=torch.float32)
        return None, partials.sum(0).to(table_SKC.dtype), grad_bias.to(bias.dtype), None


def patch_sums(ids_NHW: Tensor, table_SKC: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Returns features (N, C, h, w) of patches, channels_last, in the type of the table.

    Args:
        ids_NHW: class ids below K, uint8; H and W are multiples of the stride.
        table_SKC: what each class at each of the S = stride^2 places of a patch adds; bfloat16 or float32.
        bias: (C,).
        stride: side of a patch.
    """
    out: Tensor = _PatchSums.apply(ids_NHW, table_SKC, bias, stride)
    return out


def _blocks(table_SKC: Tensor, stride: int) -> dict[str, Any]:
    _, classes, channels = table_SKC.shape
    return {
        "S": stride,
        "K": classes,
        "BLOCK_K": max(16, triton.next_power_of_2(classes)),
        "C": channels,
        "BLOCK_C": max(16, min(CHANNELS, triton.next_power_of_2(channels))),
        "BLOCK_P": PATCHES,
        "DOT": dot_precision(table_SKC.dtype),
    }
