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
def _corner(place, step, last):
    """Returns the first of the two rows (or columns) between which a place lies, and how far it is behind it."""
    where = place.to(tl.float32) * step
    first = tl.minimum(where.to(tl.int32), last)
    return first, where - first.to(tl.float32)


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
    PB: tl.constexpr,
    CB: tl.constexpr,
):
    """Writes some pixels of the joined map: the upsampled channels, then those of the skip connection."""
    at = tl.program_id(0) * PB + tl.arange(0, PB)
    inside = (at < num_pixels)[:, None]
    x = at % (2 * width)
    rest = at // (2 * width)
    y = rest % (2 * height)
    b = (rest // (2 * height)).to(tl.int64)
    top, down = _corner(y, step_y, height - 1)
    left, right = _corner(x, step_x, width - 1)
    below, beside = tl.minimum(top + 1, height - 1), tl.minimum(left + 1, width - 1)
    upper, lower = (b * height + top) * width, (b * height + below) * width
    down, right = down[:, None], right[:, None]
    place = at.to(tl.int64)[:, None]
    for start in tl.static_range(0, C, CB):
        c = start + tl.arange(0, CB)[None]
        mask = inside & (c < C)
        a = tl.load(small + (upper + left)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        d = tl.load(small + (upper + beside)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        e = tl.load(small + (lower + left)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        f = tl.load(small + (lower + beside)[:, None] * C + c, mask=mask, other=0.0).to(tl.float32)
        value = (1 - down) * ((1 - right) * a + right * d) + down * ((1 - right) * e + right * f)
        tl.store(out + place * (C + S) + c, value.to(out.dtype.element_ty), mask=mask)
    for start in tl.static_range(0, S, CB):
        c = start + tl.arange(0, CB)[None]
        mask = inside & (c < S)
        value = tl.load(skip + place * S + c, mask=mask, other=0.0)
        tl.store(out + place * (C + S) + C + c, value, mask=mask)


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
    PB: tl.constexpr,
    CB: tl.constexpr,
    TAPS_Y: tl.constexpr,
    TAPS_X: tl.constexpr,
):
    """Gathers the gradient of some pixels of the small map from those of the joined map that they are part of."""
    at = tl.program_id(0) * PB + tl.arange(0, PB)
    inside = at < num_pixels
    x = at % width
    rest = at // width
    y = rest % height
    b = (rest // height).to(tl.int64)
    first_y = ((y - 1).to(tl.float32) / step_y).to(tl.int32)
    first_x = ((x - 1).to(tl.float32) / step_x).to(tl.int32)
    c = tl.program_id(1) * CB + tl.arange(0, CB)[None]
    total = tl.zeros((PB, CB), tl.float32)
    for i in tl.static_range(TAPS_Y):
        v = first_y + i
        weight_y = 1.0 - tl.abs(v.to(tl.float32) * step_y - y.to(tl.float32))
        row = (b * 2 * height + v) * 2 * width
        used = inside & (v >= 0) & (v < 2 * height) & (weight_y > 0)
        for j in tl.static_range(TAPS_X):
            u = first_x + j
            weight = weight_y * (1.0 - tl.abs(u.to(tl.float32) * step_x - x.to(tl.float32)))
            mask = (used & (u >= 0) & (u < 2 * width) & (weight > 0))[:, None] & (c < C)
            value = tl.load(joined + (row + u)[:, None] * (C + S) + c, mask=mask, other=0.0).to(tl.float32)
            total += weight[:, None] * value
    place = at.to(tl.int64)[:, None] * C + c
    tl.store(gradient + place, total.to(gradient.dtype.element_ty), mask=inside[:, None] & (c < C))


class _UpJoined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, small_BCHW: Tensor, skip_BSHW: Tensor) -> Tensor:
        batch, channels, height, width = small_BCHW.shape
        beside = skip_BSHW.shape[1]
        out = torch.empty(
            (batch, channels + beside, 2 * height, 2 * width),
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
            S=beside,
            PB=PIXELS,
            CB=min(CHANNELS, triton.next_power_of_2(max(channels, beside))),
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
            PB=PIXELS,
            CB=block,
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
    """Returns how far a pixel of the large map goes in the small one, down and to the right."""
    return (height - 1) / (2 * height - 1), (width - 1) / (2 * width - 1)


def _taps(size: int) -> int:
    """Returns of how many pixels in a row of the large map one of the small map is a part, at most."""
    return 2 * (2 * size - 1) // (size - 1) + 2
