"""Bilinear doubling with aligned corners, beside a skip connection, in one pass.

``F.interpolate`` computes it in float32 under autocast, and concatenation then makes float32 of both; its backward
adds to memory atomically. Here a value is read where it is needed, in its own type, and sums are float32.

Shapes: B batch, C channels, H height, W width of the small map.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

PIXELS = 8  # of a program at a time
CHANNELS = 128  # likewise, at most


@triton.jit
def _corner(index, step, last):
    """Returns the first of the two small rows (or columns) around a large one, and the weight of the second."""
    position = index.to(tl.float32) * step
    first = tl.minimum(position.to(tl.int32), last)
    return first, position - first.to(tl.float32)


@triton.jit
def join_kernel(
    small,
    skip,
    out,
    num_pixels,
    height,
    width,
    step_y,
    step_x,
    C: tl.constexpr,
    S: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    """Writes some pixels of the joined map: the upsampled channels, then those of the skip connection."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = (pixel < num_pixels)[:, None]
    x = pixel % (2 * width)
    rest = pixel // (2 * width)
    y = rest % (2 * height)
    b = (rest // (2 * height)).to(tl.int64)
    top, weight_y = _corner(y, step_y, height - 1)
    left, weight_x = _corner(x, step_x, width - 1)
    bottom, right = tl.minimum(top + 1, height - 1), tl.minimum(left + 1, width - 1)
    top_row, bottom_row = (b * height + top) * width, (b * height + bottom) * width
    weight_y, weight_x = weight_y[:, None], weight_x[:, None]
    out_pixel = pixel.to(tl.int64)[:, None]
    for start in tl.static_range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)[None]
        mask = inside & (c < C)
        top_left = tl.load(small + (top_row + left)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        top_right = tl.load(small + (top_row + right)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        bottom_left = tl.load(small + (bottom_row + left)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        bottom_right = tl.load(small + (bottom_row + right)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        upper = (1 - weight_x) * top_left + weight_x * top_right
        lower = (1 - weight_x) * bottom_left + weight_x * bottom_right
        value = (1 - weight_y) * upper + weight_y * lower
        tl.store(out + out_pixel * (C + S) + c, value.to(out.dtype.element_ty), mask=mask)
    for start in tl.static_range(0, S, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)[None]
        mask = inside & (c < S)
        value = tl.load(skip + out_pixel * S + c, mask=mask, other=0.0)
        tl.store(out + out_pixel * (C + S) + C + c, value, mask=mask)


@triton.jit
def small_gradient_kernel(
    joined,
    gradient,
    num_pixels,
    height,
    width,
    step_y,
    step_x,
    C: tl.constexpr,
    S: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
):
    """Sums the gradient of some pixels of the small map over the pixels of the joined map that depend on them."""
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = pixel < num_pixels
    x = pixel % width
    rest = pixel // width
    y = rest % height
    b = (rest // height).to(tl.int64)
    first_y = ((y - 1).to(tl.float32) / step_y).to(tl.int32)
    first_x = ((x - 1).to(tl.float32) / step_x).to(tl.int32)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)[None]
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for i in tl.static_range(TAPS_Y):
        large_y = first_y + i
        weight_y = 1.0 - tl.abs(large_y.to(tl.float32) * step_y - y.to(tl.float32))
        row = (b * 2 * height + large_y) * 2 * width
        used = inside & (large_y >= 0) & (large_y < 2 * height) & (weight_y > 0)
        for j in tl.static_range(TAPS_X):
            large_x = first_x + j
            weight = weight_y * (1.0 - tl.abs(large_x.to(tl.float32) * step_x - x.to(tl.float32)))
            mask = (used & (large_x >= 0) & (large_x < 2 * width) & (weight > 0))[:, None] & (c < C)
            value = tl.load(joined + (row + large_x)[:, None] * (C + S) + c, mask=mask, other=0.0).to(tl.float32)
            total += weight[:, None] * value
    offsets = pixel.to(tl.int64)[:, None] * C + c
    tl.store(gradient + offsets, total.to(gradient.dtype.element_ty), mask=inside[:, None] & (c < C))


class _UpJoined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, small_BCHW: Tensor, skip_BSHW: Tensor) -> Tensor:
        batch, channels, height, width = small_BCHW.shape
        skip_channels = skip_BSHW.shape[1]
        out = torch.empty(
            (batch, channels + skip_channels, 2 * height, 2 * width),
            dtype=small_BCHW.dtype,
            device=small_BCHW.device,
            memory_format=torch.channels_last,
        )
        pixels = batch * 4 * height * width
        join_kernel[(triton.cdiv(pixels, PIXELS),)](
            small_BCHW.contiguous(memory_format=torch.channels_last),
            skip_BSHW.contiguous(memory_format=torch.channels_last),
            out,
            pixels,
            height,
            width,
            *_steps(height, width),
            C=channels,
            S=skip_channels,
            BLOCK_P=PIXELS,
            BLOCK_C=min(CHANNELS, triton.next_power_of_2(max(channels, skip_channels))),
        )
        ctx.shape = small_BCHW.shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        batch, channels, height, width = ctx.shape
        joined = grads[0].contiguous(memory_format=torch.channels_last)
        small = joined.new_empty(ctx.shape).to(memory_format=torch.channels_last)
        pixels, block = batch * height * width, min(CHANNELS, triton.next_power_of_2(channels))
        small_gradient_kernel[(triton.cdiv(pixels, PIXELS), triton.cdiv(channels, block))](
            joined,
            small,
            pixels,
            height,
            width,
            *_steps(height, width),
            C=channels,
            S=joined.shape[1] - channels,
            BLOCK_P=PIXELS,
            BLOCK_C=block,
            TAPS_Y=_taps(height),
            TAPS_X=_taps(width),
        )
        return small, joined[:, channels:]


def up_joined(small_BCHW: Tensor, skip_BSHW: Tensor) -> Tensor:
    """Returns the map at twice its size, with the channels of ``skip`` after its own, channels_last.

    Args:
        small_BCHW: at least 2 x 2 pixels.
        skip_BSHW: at twice the size, of the same type.
    """
    joined: Tensor = _UpJoined.apply(small_BCHW, skip_BSHW)
    return joined


def _steps(height: int, width: int) -> tuple[float, float]:
    """Returns the distance of two rows, and of two columns, of the large map in pixels of the small map."""
    return (height - 1) / (2 * height - 1), (width - 1) / (2 * width - 1)


def _taps(size: int) -> int:
    """Returns the most pixels in a row of the large map that depend on one pixel of the small map."""
    return 2 * (2 * size - 1) // (size - 1) + 2
