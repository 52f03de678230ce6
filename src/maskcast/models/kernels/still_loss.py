"""Cross entropy of pixels whose logits never exist: products of features and class vectors, over a still picture.

PyTorch would write the logits of all classes in all pixels, and what they are made of, a dozen times. Here a
program makes those of some pixels, adds what the last seen picture says of each, and keeps only their loss or
gradient.

Shapes: B clips, S steps of each, N = B S frames, E features of a pixel, K classes, H height, W width. Features
come as a convolution gave them, (N, F F E, h, w): those of F x F pixels side by side.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from maskcast.models.kernels import dot_precision

IGNORED = tl.constexpr(255)
LOGITS = 2048  # of a program at a time: more would leave the card too few programs to hide its waits
PROGRAMS = 8  # that share a frame


@triton.jit
def _logits(x, classes, base_k, bonus, last, k, known, DOT: tl.constexpr):
    """Returns the logits of some pixels; those of classes that are none are -inf."""
    z = tl.dot(x, tl.trans(classes), input_precision=DOT) + base_k[None]
    z += tl.where((last[:, None] == k[None]) & (k > 0)[None], bonus, 0.0)
    return tl.where(known[None], z, float("-inf"))


@triton.jit
def still_kernel(
    features,
    classes,
    base,
    bonus,
    last,
    target,
    scale,
    sums,
    gradient,
    class_sums,
    base_sums,
    steps,
    small_pixels,
    small_width,
    height,
    width,
    stride_n,
    stride_c,
    stride_h,
    stride_w,
    out_n,
    out_c,
    out_h,
    out_w,
    K: tl.constexpr,
    KB: tl.constexpr,
    E: tl.constexpr,
    F: tl.constexpr,
    PB: tl.constexpr,
    BACKWARD: tl.constexpr,
    DOT: tl.constexpr,
):
    """Sums up the loss of some pixels of a frame, or writes its gradient by their features; sums up the others."""
    frame = tl.program_id(0).to(tl.int64)
    program, programs = tl.program_id(1), tl.num_programs(1)
    k, e = tl.arange(0, KB), tl.arange(0, E)
    known = k < K
    own = tl.load(classes + k[:, None] * E + e[None], mask=known[:, None], other=0.0).to(tl.float32)
    base_k = tl.load(base + (frame // steps) * K + k, mask=known, other=0.0)
    each = tl.load(bonus)
    by_base = tl.zeros((KB,), tl.float32)
    loss = tl.sum(by_base, 0)  # 0
    count, by_bonus = loss, loss
    by_class = tl.zeros((KB, E), tl.float32)
    if BACKWARD:
        factor = tl.load(scale)
    for block in range(program, tl.cdiv(small_pixels, PB), programs):
        at = block * PB + tl.arange(0, PB)
        inside = at < small_pixels
        i, j = at // small_width, at % small_width
        for part in range(F * F):
            row, column = i * F + part // F, j * F + part % F
            seen = inside & (row < height) & (column < width)
            place = row * width + column
            y = tl.load(target + frame * height * width + place, mask=seen, other=255).to(tl.int32)
            old = tl.load(last + (frame // steps) * height * width + place, mask=seen, other=0).to(tl.int32)
            channel = (part * E + e)[None]
            here = frame * stride_n + i[:, None] * stride_h + j[:, None] * stride_w + channel * stride_c
            x = tl.load(features + here, mask=inside[:, None], other=0.0).to(tl.float32)
            z = _logits(x, own, base_k, each, old, k, known, DOT)
            kept = y != IGNORED
            true = (y[:, None] == k[None]) & kept[:, None]
            top = tl.max(z, 1)
            share = tl.exp(z - top[:, None])
            total = tl.sum(share, 1)
            if BACKWARD:
                slope = tl.where(kept[:, None], share / total[:, None] - true.to(tl.float32), 0.0) * factor
                by_base += tl.sum(slope, 0)
                by_bonus += tl.sum(tl.where((old[:, None] == k[None]) & (k > 0)[None], slope, 0.0))
                there = frame * out_n + i[:, None] * out_h + j[:, None] * out_w + channel * out_c
                by_x = tl.dot(slope, own, input_precision=DOT)
                tl.store(gradient + there, by_x.to(gradient.dtype.element_ty), mask=inside[:, None])
                by_class += tl.dot(tl.trans(slope), x, input_precision=DOT)
            else:
                z_true = tl.sum(tl.where(true, z, 0.0), 1)
                loss += tl.sum(tl.where(kept, tl.log(total) + top - z_true, 0.0))
                count += tl.sum(kept.to(tl.float32))
    number = frame * programs + program
    if BACKWARD:
        tl.store(class_sums + number * KB * E + k[:, None] * E + e[None], by_class)
        tl.store(base_sums + number * (KB + 1) + k, by_base)
        tl.store(base_sums + number * (KB + 1) + KB, by_bonus)
    else:
        tl.store(sums + number * 2, loss)
        tl.store(sums + number * 2 + 1, count)


class _StillLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        classes_KE: Tensor,
        base_BK: Tensor,
        bonus: Tensor,
        last: Tensor,
        target: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(features, classes_KE, base_BK, bonus, last, target)
        sums = torch.empty((len(features), PROGRAMS, 2), device=features.device)
        _run(features, classes_KE, base_BK, bonus, last, target, sums=sums)
        total: Tensor = sums.sum((0, 1), dtype=torch.float64)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        features, classes_KE, base_BK, bonus, last, target = ctx.saved_tensors
        num_classes, width = classes_KE.shape
        wide = _wide(num_classes)
        gradient = torch.empty_like(features)
        like = {"device": features.device, "dtype": torch.float32}
        class_sums = torch.empty((len(features), PROGRAMS, wide, width), **like)
        base_sums = torch.empty((len(features), PROGRAMS, wide + 1), **like)
        scale = grads[0][:1].float()
        found = {"scale": scale, "gradient": gradient, "class_sums": class_sums, "base_sums": base_sums}
        _run(features, classes_KE, base_BK, bonus, last, target, **found)
        by_class = class_sums.sum((0, 1))[:num_classes]
        by_clip = base_sums.view(len(base_BK), -1, wide + 1).sum(1)
        return (
            gradient,
            by_class.to(classes_KE.dtype),
            by_clip[:, :num_classes],
            by_clip[:, wide].sum(),
            None,
            None,
        )


def still_loss(
    features_NCHW: Tensor,
    classes_KE: Tensor,
    base_BK: Tensor,
    bonus: Tensor,
    last_BHW: Tensor,
    target_BSHW: Tensor,
) -> Tensor:
    """Returns the sum of the cross entropy of all pixels, and the number of those that count, float64 (2,).

    A pixel's logits are ``features @ classes.T + base``, plus ``bonus`` for the class that it had last, if not 0.

    Args:
        features_NCHW: (B S, F F E, h, w); bfloat16 or float32, in any layout.
        classes_KE: E a power of 2, at least 16.
        base_BK: float32.
        bonus: a number, float32.
        last_BHW: class ids, uint8; H <= h F, W <= w F.
        target_BSHW: class ids, uint8; 255 does not count.
    """
    total: Tensor = _StillLoss.apply(features_NCHW, classes_KE, base_BK, bonus, last_BHW, target_BSHW)
    return total


def _wide(num_classes: int) -> int:
    return max(16, triton.next_power_of_2(num_classes))


def _run(
    features: Tensor,
    classes_KE: Tensor,
    base_BK: Tensor,
    bonus: Tensor,
    last: Tensor,
    target: Tensor,
    **found: Tensor,
) -> None:
    frames, channels, rows, columns = features.shape
    num_classes, width = classes_KE.shape
    wide = _wide(num_classes)
    fine = int((channels // width) ** 0.5)
    out = found.get("gradient", features)
    names = ("scale", "sums", "gradient", "class_sums", "base_sums")
    still_kernel[(frames, PROGRAMS)](
        features,
        classes_KE.to(features.dtype).contiguous(),
        base_BK.contiguous(),
        bonus,
        last.contiguous(),
        target.contiguous(),
        *(found.get(name, bonus) for name in names),
        frames // len(base_BK),
        rows * columns,
        columns,
        *last.shape[1:],
        *features.stride(),
        *out.stride(),
        K=num_classes,
        KB=wide,
        E=width,
        F=fine,
        PB=max(16, LOGITS // wide),
        BACKWARD="gradient" in found,
        DOT=dot_precision(features.dtype),
    )
