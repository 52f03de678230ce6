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

    def __init__(self, gates_x: Tensor, gates_h: Tensor, norm: nn.GroupNorm) -> None:
        self.batch, self.gates, height, width = gates_h.shape
        self.pixels, self.channels = height * width, self.gates // 4
        self.groups, self.group, self.eps = norm.num_groups, self.gates // norm.num_groups, norm.eps
        self.strides = (gates_x.stride(0), self.gates) if gates_x.ndim == 4 else (0, 0)
        self.block_c = min(CHANNELS, triton.next_power_of_2(self.channels))
        self.block_p = ELEMENTS // self.block_c
        self.chunks = min(CHUNKS, triton.cdiv(self.pixels, self.block_p))
        self.channel_blocks = triton.cdiv(self.channels, self.block_c)

    def merged(self, partials: Tensor, norm: nn.GroupNorm, *, moments: bool) -> Tensor:
        """Returns (B, groups, 2) of what was summed up of the pixels of a picture."""
        out = partials.new_empty((self.batch, self.groups, 2))
        merge_kernel[(self.batch, self.groups)](
            partials,
            norm.weight,
            out,
            self.chunks,
            self.pixels * self.group,
            self.eps,
            G=self.gates,
            GROUP=self.group,
            BLOCK_CHUNKS=triton.next_power_of_2(self.chunks),
            BLOCK_C=triton.next_power_of_2(self.group),
            MOMENTS=moments,
        )
        return out

    @property
    def blocks(self) -> dict[str, int]:
        """The sizes that are compiled in."""
        return {"C": self.channels, "GROUP": self.group, "BLOCK_P": self.block_p, "BLOCK_C": self.block_c}


class _Gates(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gates_x: Tensor, gates_h: Tensor, cell: Tensor, weight: Tensor, bias: Tensor, norm: nn.GroupNorm
    ) -> tuple[Tensor, Tensor]:
        gates_x, gates_h, cell = _gates_layout(gates_x), _channels_last(gates_h), _channels_last(cell)
        sizes = _Sizes(gates_x, gates_h, norm)
        partials = weight.new_empty((sizes.batch, sizes.chunks, 2, sizes.gates))
        sums_kernel[(sizes.batch, sizes.chunks, triton.cdiv(sizes.gates, sizes.block_c))](
            gates_x,
            gates_h,
            partials,
            sizes.pixels,
            *sizes.strides,
            G=sizes.gates,
            BLOCK_P=sizes.block_p,
            BLOCK_C=sizes.block_c,
        )
        moments = sizes.merged(partials, norm, moments=True)
        hidden, new = torch.empty_like(cell, dtype=gates_h.dtype), torch.empty_like(cell)
        state_kernel[(sizes.batch, triton.cdiv(sizes.pixels, sizes.block_p), sizes.channel_blocks)](
            gates_x,
            gates_h,
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
        ctx.save_for_backward(gates_x, gates_h, cell, weight, bias, moments)
        return hidden, new

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gates_x, gates_h, cell, weight, bias, moments = ctx.saved_tensors
        grad_hidden, grad_cell = (_channels_last(grad) for grad in grads)
        sizes = _Sizes(gates_x, gates_h, ctx.norm)
        cell_and_grads = (cell, grad_hidden, grad_cell)
        partials = weight.new_empty((sizes.batch, sizes.chunks, 2, sizes.gates))
        slope_sums_kernel[(sizes.batch, sizes.chunks, sizes.channel_blocks)](
            gates_x,
            gates_h,
            moments,
            weight,
            bias,
            *cell_and_grads,
            partials,
            sizes.pixels,
            *sizes.strides,
            **sizes.blocks,
        )
        means = sizes.merged(partials, ctx.norm, moments=False)
        gradient, grad_old_cell = torch.empty_like(gates_h), torch.empty_like(cell)
        gradient_kernel[(sizes.batch, triton.cdiv(sizes.pixels, sizes.block_p), sizes.channel_blocks)](
            gates_x,
            gates_h,
            moments,
            means,
            weight,
            bias,
            *cell_and_grads,
            gradient,
            grad_old_cell,
            sizes.pixels,
            *sizes.strides,
            **sizes.blocks,
        )
        grad_bias, grad_weight = partials.sum((0, 1))
        grad_x = gradient
        if gates_x.ndim == 3:
            grad_x = gradient.sum((0, 2, 3), dtype=torch.float32)[:, None, None].to(gates_x.dtype)
        return grad_x, gradient, grad_old_cell, grad_weight, grad_bias, None


def gated(gates_x: Tensor, gates_h: Tensor, cell: Tensor, norm: nn.GroupNorm) -> tuple[Tensor, Tensor]:
    """Returns the new state of a ConvLSTM: hidden in the type of ``gates_h``, cell in float32; channels_last.

    Args:
        gates_x: input half of the gates, (B, 4 C, H, W), or (4 C, 1, 1) in a step without input.
        gates_h: hidden half, (B, 4 C, H, W), float16, bfloat16 or float32.
        cell: (B, C, H, W) float32.
        norm: of the gates, with float32 weights.
    """
    found: tuple[Tensor, Tensor] = _Gates.apply(gates_x, gates_h, cell, norm.weight, norm.bias, norm)
    return found


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _gates_layout(gates_x: Tensor) -> Tensor:
    """Returns it in channels_last within each picture; the pictures may be any distance apart in memory."""
    if gates_x.ndim == 3:
        return gates_x.contiguous()
    _, gates, _, width = gates_x.shape
    return gates_x if gates_x.stride()[1:] == (1, width * gates, gates) else _channels_last(gates_x)
