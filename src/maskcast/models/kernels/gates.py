"""The gates of a ConvLSTM: sum of both halves, GroupNorm, sigmoids and the new state, in two passes over memory.

PyTorch's operations make some twenty forward and forty backward.

Shapes: B pictures, C channels of the state, H height, W width.
"""

from typing import Any

import torch
import triton
from torch import Tensor, nn

from maskcast.models.kernels.gate_kernels import (
    gradient_kernel,
    merge_kernel,
    slope_sums_kernel,
    state_kernel,
    sums_kernel,
)

ELEMENTS = 1024  # of a program at a time
CHANNELS = 64  # likewise, at most
CHUNKS = 16  # programs that sum up a picture


class _Sizes:
    """What all kernels of a call are told."""

    def __init__(self, seen: Tensor, remembered: Tensor, norm: nn.GroupNorm) -> None:
        self.batch, self.gates, height, width = remembered.shape
        self.pixels, self.channels = height * width, self.gates // 4
        self.groups, self.group, self.eps = norm.num_groups, self.gates // norm.num_groups, norm.eps
        self.strides = (seen.stride(0), self.gates) if seen.ndim == 4 else (0, 0)
        self.wide = min(CHANNELS, triton.next_power_of_2(self.channels))
        self.rows = ELEMENTS // self.wide
        self.chunks = min(CHUNKS, triton.cdiv(self.pixels, self.rows))
        self.over = triton.cdiv(self.channels, self.wide)

    def merged(self, parts: Tensor, norm: nn.GroupNorm, *, moments: bool) -> Tensor:
        """Returns (B, groups, 2) of what was summed up of the pixels of a picture."""
        out = parts.new_empty((self.batch, self.groups, 2))
        merge_kernel[(self.batch, self.groups)](
            parts,
            norm.weight,
            out,
            self.chunks,
            self.pixels * self.group,
            self.eps,
            G=self.gates,
            GROUP=self.group,
            PB=triton.next_power_of_2(self.chunks),
            CB=triton.next_power_of_2(self.group),
            MOMENTS=moments,
        )
        return out

    @property
    def blocks(self) -> dict[str, int]:
        """The sizes that are compiled in."""
        return {"C": self.channels, "GROUP": self.group, "RB": self.rows, "CB": self.wide}


class _Gates(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, seen: Tensor, remembered: Tensor, cell: Tensor, weight: Tensor, bias: Tensor, norm: nn.GroupNorm
    ) -> tuple[Tensor, Tensor]:
        seen, remembered, cell = _laid_out(seen), _channels_last(remembered), _channels_last(cell)
        sizes = _Sizes(seen, remembered, norm)
        parts = weight.new_empty((sizes.batch, sizes.chunks, 2, sizes.gates))
        sums_kernel[(sizes.batch, sizes.chunks, triton.cdiv(sizes.gates, sizes.wide))](
            seen, remembered, parts, sizes.pixels, *sizes.strides, G=sizes.gates, RB=sizes.rows, CB=sizes.wide
        )
        moments = sizes.merged(parts, norm, moments=True)
        hidden, new = torch.empty_like(cell, dtype=remembered.dtype), torch.empty_like(cell)
        state_kernel[(sizes.batch, triton.cdiv(sizes.pixels, sizes.rows), sizes.over)](
            seen,
            remembered,
            moments,
            weight,
            bias,
            cell,
            hidden,
            new,
            sizes.pixels,
            *sizes.strides,
            **sizes.blocks,
        )
        ctx.norm = norm
        ctx.save_for_backward(seen, remembered, cell, weight, bias, moments)
        return hidden, new

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        seen, remembered, cell, weight, bias, moments = ctx.saved_tensors
        by_hidden, by_cell = (_channels_last(grad) for grad in grads)
        sizes = _Sizes(seen, remembered, ctx.norm)
        known = (cell, by_hidden, by_cell)
        parts = weight.new_empty((sizes.batch, sizes.chunks, 2, sizes.gates))
        slope_sums_kernel[(sizes.batch, sizes.chunks, sizes.over)](
            seen,
            remembered,
            moments,
            weight,
            bias,
            *known,
            parts,
            sizes.pixels,
            *sizes.strides,
            **sizes.blocks,
        )
        means = sizes.merged(parts, ctx.norm, moments=False)
        gradient, by_old = torch.empty_like(remembered), torch.empty_like(cell)
        gradient_kernel[(sizes.batch, triton.cdiv(sizes.pixels, sizes.rows), sizes.over)](
            seen,
            remembered,
            moments,
            means,
            weight,
            bias,
            *known,
            gradient,
            by_old,
            sizes.pixels,
            *sizes.strides,
            **sizes.blocks,
        )
        by_bias, by_weight = parts.sum((0, 1))
        by_seen = gradient
        if seen.ndim == 3:
            by_seen = gradient.sum((0, 2, 3), dtype=torch.float32)[:, None, None].to(seen.dtype)
        return by_seen, gradient, by_old, by_weight, by_bias, None


def gated(seen: Tensor, remembered: Tensor, cell: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Returns the new state of a ConvLSTM: hidden in the type of ``remembered``, cell in float32; channels_last.

    Args:
        seen: input half of the gates, (B, 4 C, H, W), or (4 C, 1, 1) where nothing is seen.
        remembered: hidden half, (B, 4 C, H, W), float16, bfloat16 or float32.
        cell: (B, C, H, W) float32.
        norm: of the gates, with float32 weights.
    """
    found: tuple[Tensor, Tensor] = _Gates.apply(seen, remembered, cell, norm.weight, norm.bias, norm)
    return found


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _laid_out(seen: Tensor) -> Tensor:
    """Returns it with the channels of a pixel and the pixels of a picture side by side; pictures may lie apart."""
    if seen.ndim == 3:
        return seen.contiguous()
    _, gates, _, width = seen.shape
    return seen if seen.stride()[1:] == (1, width * gates, gates) else _channels_last(seen)
