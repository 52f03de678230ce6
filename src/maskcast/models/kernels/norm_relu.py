"""Batch norm and ReLU of a map: three passes over memory forward and five backward; PyTorch's take fifteen.

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
def moments_kernel(x, partials, rows, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Stores number, mean and sum of squared deviations of every ``num_programs``-th block of rows."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c < C
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    count = tl.sum(mean, 0)  # 0
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_R), tl.num_programs(0)):
        r = (block * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)
        mask = (r < rows)[:, None] & c_mask[None]
        value = tl.load(x + r[:, None] * C + c[None], mask=mask, other=0.0).to(tl.float32)
        block_count = tl.sum((r < rows).to(tl.float32), 0)
        block_mean = tl.sum(value, 0) / block_count
        deviation = tl.where(mask, value - block_mean[None], 0.0)
        total = count + block_count
        delta = block_mean - mean
        mean += delta * (block_count / total)
        squares += tl.sum(deviation * deviation, 0) + delta * delta * (count * block_count / total)
        count = total
    out = partials + tl.program_id(0) * 3 * C + c
    tl.store(out, tl.zeros((BLOCK_C,), tl.float32) + count, mask=c_mask)
    tl.store(out + C, mean, mask=c_mask)
    tl.store(out + 2 * C, squares, mask=c_mask)


@triton.jit
def merge_kernel(
    partials,
    programs,
    moments,
    running_mean,
    running_var,
    momentum,
    eps,
    C: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Merges the moments of all programs; stores mean and 1 / standard deviation; updates running statistics."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    p = tl.arange(0, BLOCK_P)
    c_mask = c < C
    mask = (p < programs)[:, None] & c_mask[None]
    pointers = partials + p[:, None] * 3 * C + c[None]
    count = tl.load(pointers, mask=mask, other=0.0)
    means = tl.load(pointers + C, mask=mask, other=0.0)
    total = tl.maximum(tl.sum(count, 0), 1.0)
    mean = tl.sum(count * means, 0) / total
    deviation = means - mean[None]
    squares = tl.sum(tl.load(pointers + 2 * C, mask=mask, other=0.0) + count * deviation * deviation, 0)
    tl.store(moments + c, mean, mask=c_mask)
    tl.store(moments + C + c, 1.0 / tl.sqrt(squares / total + eps), mask=c_mask)
    old_mean, old_var = tl.load(running_mean + c, mask=c_mask), tl.load(running_var + c, mask=c_mask)
    unbiased = squares / tl.maximum(total - 1.0, 1.0)
    tl.store(running_mean + c, old_mean + momentum * (mean - old_mean), mask=c_mask)
    tl.store(running_var + c, old_var + momentum * (unbiased - old_var), mask=c_mask)


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
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
    VARIANCE: tl.constexpr,
):
    """Writes ReLU of the normalised rows of a block; ``spread`` is the variance or 1 / standard deviation."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    c_mask = c < C
    mask = (r < rows)[:, None] & c_mask[None]
    scale = tl.load(spread + c, mask=c_mask, other=1.0).to(tl.float32)
    if VARIANCE:
        scale = 1.0 / tl.sqrt(scale + eps)
    scale *= tl.load(weight + c, mask=c_mask, other=0.0).to(tl.float32)
    centre = tl.load(mean + c, mask=c_mask, other=0.0).to(tl.float32)
    shift = tl.load(bias + c, mask=c_mask, other=0.0).to(tl.float32)
    offsets = r[:, None] * C + c[None]
    value = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
    value = (value - centre[None]) * scale[None] + shift[None]
    tl.store(out + offsets, tl.maximum(value, 0.0).to(out.dtype.element_ty), mask=mask)


@triton.jit
def gradient_sums_kernel(
    x, grad, moments, weight, bias, partials, rows, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Stores sums over some rows: of the gradient before the ReLU, and of this gradient * normalised value."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    c_mask = c < C
    mean = tl.load(moments + c, mask=c_mask, other=0.0)
    inverse = tl.load(moments + C + c, mask=c_mask, other=0.0)
    w, b = tl.load(weight + c, mask=c_mask, other=0.0), tl.load(bias + c, mask=c_mask, other=0.0)
    total, product = tl.zeros((BLOCK_C,), tl.float32), tl.zeros((BLOCK_C,), tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(rows, BLOCK_R), tl.num_programs(0)):
        r = (block * BLOCK_R + tl.arange(0, BLOCK_R)).to(tl.int64)
        mask = (r < rows)[:, None] & c_mask[None]
        offsets = r[:, None] * C + c[None]
        normalised = (tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32) - mean[None]) * inverse[None]
        gradient = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
        gradient = tl.where(normalised * w[None] + b[None] > 0, gradient, 0.0)
        total += tl.sum(gradient, 0)
        product += tl.sum(gradient * normalised, 0)
    out = partials + tl.program_id(0) * 2 * C + c
    tl.store(out, total, mask=c_mask)
    tl.store(out + C, product, mask=c_mask)


@triton.jit
def input_gradient_kernel(
    x, grad, out, moments, weight, bias, sums, rows, C: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """Writes the gradient of the input of a block."""
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    r = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    c_mask = c < C
    mask = (r < rows)[:, None] & c_mask[None]
    mean = tl.load(moments + c, mask=c_mask, other=0.0)
    inverse = tl.load(moments + C + c, mask=c_mask, other=0.0)
    w, b = tl.load(weight + c, mask=c_mask, other=0.0), tl.load(bias + c, mask=c_mask, other=0.0)
    total = tl.load(sums + c, mask=c_mask, other=0.0) / rows
    product = tl.load(sums + C + c, mask=c_mask, other=0.0) / rows
    offsets = r[:, None] * C + c[None]
    normalised = (tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32) - mean[None]) * inverse[None]
    gradient = tl.load(grad + offsets, mask=mask, other=0.0).to(tl.float32)
    gradient = tl.where(normalised * w[None] + b[None] > 0, gradient, 0.0)
    value = (w * inverse)[None] * (gradient - total[None] - normalised * product[None])
    tl.store(out + offsets, value.to(out.dtype.element_ty), mask=mask)


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
        rows, channels, block_r, block_c = _sizes(x_BCHW)
        programs = _programs(rows, channels, block_r, block_c)
        partials = weight.new_empty((programs, 3, channels))
        moments = weight.new_empty((2, channels))
        channel_blocks = triton.cdiv(channels, block_c)
        moments_kernel[(programs, channel_blocks)](
            x_BCHW, partials, rows, C=channels, BLOCK_R=block_r, BLOCK_C=block_c
        )
        merge_kernel[(triton.cdiv(channels, 8),)](
            partials,
            programs,
            moments,
            running_mean,
            running_var,
            momentum,
            eps,
            C=channels,
            BLOCK_P=triton.next_power_of_2(programs),
            BLOCK_C=8,
        )
        out = _applied(x_BCHW, moments[0], moments[1], weight, bias, eps, variance=False)
        ctx.save_for_backward(x_BCHW, moments, weight, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x_BCHW, moments, weight, bias = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        rows, channels, block_r, block_c = _sizes(x_BCHW)
        programs, channel_blocks = _programs(rows, channels, block_r, block_c), triton.cdiv(channels, block_c)
        partials = weight.new_empty((programs, 2, channels))
        gradient_sums_kernel[(programs, channel_blocks)](
            x_BCHW, grad, moments, weight, bias, partials, rows, C=channels, BLOCK_R=block_r, BLOCK_C=block_c
        )
        sums = partials.sum(0)
        out = torch.empty_like(x_BCHW)
        input_gradient_kernel[(triton.cdiv(rows, block_r), channel_blocks)](
            x_BCHW, grad, out, moments, weight, bias, sums, rows, C=channels, BLOCK_R=block_r, BLOCK_C=block_c
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
    rows, channels, block_r, block_c = _sizes(x_BCHW)
    out = torch.empty_like(x_BCHW)
    apply_kernel[(triton.cdiv(rows, block_r), triton.cdiv(channels, block_c))](
        x_BCHW,
        out,
        mean,
        spread,
        weight,
        bias,
        rows,
        eps,
        C=channels,
        BLOCK_R=block_r,
        BLOCK_C=block_c,
        VARIANCE=variance,
    )
    return out


def _sizes(x_BCHW: Tensor) -> tuple[int, int, int, int]:
    """Returns rows and channels, and how many of each a program takes at a time."""
    channels = x_BCHW.shape[1]
    block_c = min(CHANNELS, triton.next_power_of_2(channels))
    return x_BCHW.numel() // channels, channels, ELEMENTS // block_c, block_c


def _programs(rows: int, channels: int, block_r: int, block_c: int) -> int:
    """Returns how many programs share the rows, where others take other channels."""
    channel_blocks = triton.cdiv(channels, block_c)
    return max(1, min(PROGRAMS // channel_blocks, triton.cdiv(rows, block_r)))
