"""Sums of the rows of a table that the class ids of a patch pick: products with a one-hot picture never made.

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
def _places(at, rows, columns, S: tl.constexpr):
    """Returns where the first pixel of each patch is."""
    picture = (at // (rows * columns)).to(tl.int64)
    i, j = at // columns % rows, at % columns
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
    KB: tl.constexpr,
    C: tl.constexpr,
    CB: tl.constexpr,
    PB: tl.constexpr,
    DOT: tl.constexpr,
):
    """Writes the features of some patches."""
    at = tl.program_id(0) * PB + tl.arange(0, PB)
    c, k = tl.program_id(1) * CB + tl.arange(0, CB), tl.arange(0, KB)
    first = _places(at, rows, columns, S)
    total = tl.zeros((PB, CB), tl.float32)
    for place in range(S * S):
        pixel = first + (place // S) * columns * S + place % S
        own = tl.load(ids + pixel, mask=at < patches, other=255).to(tl.int32)
        here = table + (place * K + k)[:, None] * C + c[None]
        vectors = tl.load(here, mask=(k < K)[:, None] & (c < C)[None], other=0.0).to(tl.float32)
        total += tl.dot((own[:, None] == k[None]).to(tl.float32), vectors, input_precision=DOT)
    total += tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)[None]
    there = out + at.to(tl.int64)[:, None] * C + c[None]
    tl.store(there, total.to(out.dtype.element_ty), mask=(at < patches)[:, None] & (c < C)[None])


@triton.jit
def gradient_kernel(
    ids,
    grad,
    parts,
    patches,
    rows,
    columns,
    S: tl.constexpr,
    K: tl.constexpr,
    KB: tl.constexpr,
    C: tl.constexpr,
    CB: tl.constexpr,
    PB: tl.constexpr,
    DOT: tl.constexpr,
):
    """Stores the sum of the gradients of some patches by the class at one place of them."""
    place, program = tl.program_id(0), tl.program_id(1)
    c, k = tl.program_id(2) * CB + tl.arange(0, CB), tl.arange(0, KB)
    total = tl.zeros((KB, CB), tl.float32)
    for block in range(program, tl.cdiv(patches, PB), tl.num_programs(1)):
        at = block * PB + tl.arange(0, PB)
        pixel = _places(at, rows, columns, S) + (place // S) * columns * S + place % S
        own = tl.load(ids + pixel, mask=at < patches, other=255).to(tl.int32)
        mask = (at < patches)[:, None] & (c < C)[None]
        own_grad = tl.load(grad + at.to(tl.int64)[:, None] * C + c[None], mask=mask, other=0.0).to(tl.float32)
        total += tl.dot((k[:, None] == own[None]).to(tl.float32), own_grad, input_precision=DOT)
    out = parts + ((program * S * S + place) * K + k)[:, None] * C + c[None]
    tl.store(out, total, mask=(k < K)[:, None] & (c < C)[None])


class _PatchSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids_NHW: Tensor, table_SKC: Tensor, bias: Tensor, stride: int) -> Tensor:
        ids_NHW, table_SKC = ids_NHW.contiguous(), table_SKC.contiguous()
        pictures, height, width = ids_NHW.shape
        rows, columns, channels = height // stride, width // stride, table_SKC.shape[2]
        patches, blocks = pictures * rows * columns, _blocks(table_SKC, stride)
        out = table_SKC.new_empty((pictures, rows, columns, channels))
        sums_kernel[(triton.cdiv(patches, PATCHES), triton.cdiv(channels, blocks["CB"]))](
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
        parts = torch.empty((programs, *table_SKC.shape), dtype=torch.float32, device=ids_NHW.device)
        gradient_kernel[(places, programs, triton.cdiv(channels, blocks["CB"]))](
            ids_NHW, grad_NhwC, parts, pictures * rows * columns, rows, columns, **blocks
        )
        by_bias = grad_NhwC.sum((0, 1, 2), dtype=torch.float32)
        return None, parts.sum(0).to(table_SKC.dtype), by_bias.to(bias.dtype), None


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
        "KB": max(16, triton.next_power_of_2(classes)),
        "C": channels,
        "CB": max(16, min(CHANNELS, triton.next_power_of_2(channels))),
        "PB": PATCHES,
        "DOT": dot_precision(table_SKC.dtype),
    }
