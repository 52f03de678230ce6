"""Batch norm and ReLU of a map: three passes over memory forward and five backward, PyTorch's take fifteen.

Statistics are float32, merged over blocks by Chan's formula (Chan et al. 1983), so that a mean far from 0 costs no
digits. Nothing is added atomically: equal inputs give equal bits.

Shapes: M = batch x height x width, C channels, P programs.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional as F

ELEMENTS = 4096  # of a program at a time
CHANNELS = 64  # likewise, at most
PROGRAMS = 512  # that sum up


@triton.jit
def moments_kernel(x, parts, rows, C: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr):
    """Stores of every so many rows: their number, mean, and sum of squared differences from it."""
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    known = c < C
    mean = tl.zeros((CB,), tl.float32)
    squares = tl.zeros((CB,), tl.float32)
    seen = tl.sum(mean, 0)  # 0
    for block in range(tl.program_id(0), tl.cdiv(rows, RB), tl.num_programs(0)):
        r = (block * RB + tl.arange(0, RB)).to(tl.int64)
        mask = (r < rows)[:, None] & known[None]
        value = tl.load(x + r[:, None] * C + c[None], mask=mask, other=0.0).to(tl.float32)
        count = tl.sum((r < rows).to(tl.float32), 0)
        own = tl.sum(value, 0) / count
        off = tl.where(mask, value - own[None], 0.0)
        total = seen + count
        apart = own - mean
        mean += apart * (count / total)
        squares += tl.sum(off * off, 0) + apart * apart * (seen * count / total)
        seen = total
    out = parts + tl.program_id(0) * 3 * C + c
    tl.store(out, tl.zeros((CB,), tl.float32) + seen, mask=known)
    tl.store(out + C, mean, mask=known)
    tl.store(out + 2 * C, squares, mask=known)


@triton.jit
def merge_kernel(
    parts,
    programs,
    moments,
    running_mean,
    running_var,
    momentum,
    eps,
    C: tl.constexpr,
    PB: tl.constexpr,
    CB: tl.constexpr,
):
    """Merges the moments of all programs; stores mean and 1 / deviation, and moves the running statistics."""
    c = tl.program_id(0) * CB + tl.arange(0, CB)
    p = tl.arange(0, PB)
    known = c < C
    mask = (p < programs)[:, None] & known[None]
    here = parts + p[:, None] * 3 * C + c[None]
    count = tl.load(here, mask=mask, other=0.0)
    each = tl.load(here + C, mask=mask, other=0.0)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    mean = tl.sum(count * each, 0) / total
    off = each - mean[None]
    squares = tl.sum(tl.load(here + 2 * C, mask=mask, other=0.0) + count * off * off, 0)
    tl.store(moments + c, mean, mask=known)
    tl.store(moments + C + c, 1.0 / tl.sqrt(squares / total + eps), mask=known)
    old_mean, old_var = tl.load(running_mean + c, mask=known), tl.load(running_var + c, mask=known)
    unbiased = squares / tl.maximum(total - 1.0, 1.0)
    tl.store(running_mean + c, old_mean + momentum * (mean - old_mean), mask=known)
    tl.store(running_var + c, old_var + momentum * (unbiased - old_var), mask=known)


@triton.jit
def apply_kernel(
    x,
    out,
    mean,
    spread,
    weight,
    bias,
    rows,
    eps,
    C: tl.constexpr,
    RB: tl.constexpr,
    CB: tl.constexpr,
    VARIANCE: tl.constexpr,
):
    """Writes the normalised rows of a block, negative ones as 0; ``spread`` is a variance or 1 / deviation."""
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    r = tl.program_id(0).to(tl.int64) * RB + tl.arange(0, RB)
    known = c < C
    mask = (r < rows)[:, None] & known[None]
    scale = tl.load(spread + c, mask=known, other=1.0).to(tl.float32)
    if VARIANCE:
        scale = 1.0 / tl.sqrt(scale + eps)
    scale *= tl.load(weight + c, mask=known, other=0.0).to(tl.float32)
    centre = tl.load(mean + c, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(bias + c, mask=known, other=0.0).to(tl.float32)
    place = r[:, None] * C + c[None]
    value = tl.load(x + place, mask=mask, other=0.0).to(tl.float32)
    value = (value - centre[None]) * scale[None] + shift[None]
    tl.store(out + place, tl.maximum(value, 0.0).to(out.dtype.element_ty), mask=mask)


@triton.jit
def gradient_sums_kernel(
    x, grad, moments, weight, bias, parts, rows, C: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr
):
    """Stores of some rows the sum of the gradient behind the ReLU, and of it times the normalised value."""
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    known = c < C
    mean = tl.load(moments + c, mask=known, other=0.0)
    inverse = tl.load(moments + C + c, mask=known, other=0.0)
    w, b = tl.load(weight + c, mask=known, other=0.0), tl.load(bias + c, mask=known, other=0.0)
    total, product = tl.zeros((CB,), tl.float32), tl.zeros((CB,), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, RB), tl.num_programs(0)):
        r = (block * RB + tl.arange(0, RB)).to(tl.int64)
        mask = (r < rows)[:, None] & known[None]
        place = r[:, None] * C + c[None]
        normal = (tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - mean[None]) * inverse[None]
        g = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
        g = tl.where(normal * w[None] + b[None] > 0, g, 0.0)
        total += tl.sum(g, 0)
        product += tl.sum(g * normal, 0)
    out = parts + tl.program_id(0) * 2 * C + c
    tl.store(out, total, mask=known)
    tl.store(out + C, product, mask=known)


@triton.jit
def input_gradient_kernel(
    x, grad, out, moments, weight, bias, sums, rows, C: tl.constexpr, RB: tl.constexpr, CB: tl.constexpr
):
    """Writes the gradient of the input of a block."""
    c = tl.program_id(1) * CB + tl.arange(0, CB)
    r = tl.program_id(0).to(tl.int64) * RB + tl.arange(0, RB)
    known = c < C
    mask = (r < rows)[:, None] & known[None]
    mean = tl.load(moments + c, mask=known, other=0.0)
    inverse = tl.load(moments + C + c, mask=known, other=0.0)
    w, b = tl.load(weight + c, mask=known, other=0.0), tl.load(bias + c, mask=known, other=0.0)
    total = tl.load(sums + c, mask=known, other=0.0) / rows
    product = tl.load(sums + C + c, mask=known, other=0.0) / rows
    place = r[:, None] * C + c[None]
    normal = (tl.load(x + place, mask=mask, other=0.0).to(tl.float32) - mean[None]) * inverse[None]
    g = tl.load(grad + place, mask=mask, other=0.0).to(tl.float32)
    g = tl.where(normal * w[None] + b[None] > 0, g, 0.0)
    value = (w * inverse)[None] * (g - total[None] - normal * product[None])
    tl.store(out + place, value.to(out.dtype.element_ty), mask=mask)


class _NormRelu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BCHW: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
        rows, channels, block, wide = _sizes(x_BCHW)
        programs = _programs(rows, channels, block, wide)
        parts = weight.new_empty((programs, 3, channels))
        moments = weight.new_empty((2, channels))
        over = triton.cdiv(channels, wide)
        moments_kernel[(programs, over)](x_BCHW, parts, rows, C=channels, RB=block, CB=wide)
        merge_kernel[(triton.cdiv(channels, 8),)](
            parts,
            programs,
            moments,
            running_mean,
            running_var,
            momentum,
            eps,
            C=channels,
            PB=triton.next_power_of_2(programs),
            CB=8,
        )
        out = _applied(x_BCHW, moments[0], moments[1], weight, bias, eps, variance=False)
        ctx.save_for_backward(x_BCHW, moments, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, moments, weight, bias = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        rows, channels, block, wide = _sizes(x_BCHW)
        programs, over = _programs(rows, channels, block, wide), triton.cdiv(channels, wide)
        parts = weight.new_empty((programs, 2, channels))
        gradient_sums_kernel[(programs, over)](
            x_BCHW, grad, moments, weight, bias, parts, rows, C=channels, RB=block, CB=wide
        )
        sums = parts.sum(0)
        out = torch.empty_like(x_BCHW)
        input_gradient_kernel[(triton.cdiv(rows, block), over)](
            x_BCHW, grad, out, moments, weight, bias, sums, rows, C=channels, RB=block, CB=wide
        )
        return out, sums[1], sums[0], None, None, None, None


def norm_relu(x_BCHW: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Returns ``relu(norm(x))``, channels_last, and moves the statistics of a norm that trains.

    Args:
        x_BCHW: float16, bfloat16 or float32.
        norm: with float32 weights and running statistics, and a momentum.
    """
    weight, bias, mean, var = norm.weight, norm.bias, norm.running_mean, norm.running_var
    assert mean is not None and var is not None and norm.momentum is not None
    if norm.training:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        out: Tensor = _NormRelu.apply(x_BCHW, weight, bias, mean, var, norm.momentum, norm.eps)
        return out
    if torch.is_grad_enabled() and (x_BCHW.requires_grad or weight.requires_grad):  # a frozen norm
        return F.relu(norm(x_BCHW))
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    return _applied(x_BCHW, mean, var, weight, bias, norm.eps, variance=True)


def _applied(
    x_BCHW: Tensor, mean: Tensor, spread: Tensor, weight: Tensor, bias: Tensor, eps: float, *, variance: bool
) -> Tensor:
    rows, channels, block, wide = _sizes(x_BCHW)
    out = torch.empty_like(x_BCHW)
    apply_kernel[(triton.cdiv(rows, block), triton.cdiv(channels, wide))](
        x_BCHW,
        out,
        mean,
        spread,
        weight,
        bias,
        rows,
        eps,
        C=channels,
        RB=block,
        CB=wide,
        VARIANCE=variance,
    )
    return out


def _sizes(x_BCHW: Tensor) -> tuple[int, int, int, int]:
    """Returns rows and channels, and how many of each a program takes at a time."""
    channels = x_BCHW.shape[1]
    wide = min(CHANNELS, triton.next_power_of_2(channels))
    return x_BCHW.numel() // channels, channels, ELEMENTS // wide, wide


def _programs(rows: int, channels: int, block: int, wide: int) -> int:
    """Returns how many programs share the rows, where others take other channels."""
    over = triton.cdiv(channels, wide)
    return max(1, min(PROGRAMS // over, triton.cdiv(rows, block)))
