"""Cross entropy of pixels without storing logits: products of features and class vectors, over a still picture.

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
LOGITS = 2048  # per block: with more, too few programs would run to hide latency
PROGRAMS = 8  # that share a frame


@triton.jit
def _logits(x, classes, base_k, bonus, last_id, k, k_mask, DOT: tl.constexpr):
    """Returns the logits of some pixels; -inf in the padding of the classes."""
    z = tl.dot(x, tl.trans(classes), input_precision=DOT) + base_k[None]
    z += tl.where((last_id[:, None] == k[None]) & (k > 0)[None], bonus, 0.0)
    return tl.where(k_mask[None], z, float("-inf"))


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
    BLOCK_K: tl.constexpr,
    E: tl.constexpr,
    F: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BACKWARD: tl.constexpr,
    DOT: tl.constexpr,
):
    """Sums the loss of some pixels of a frame, or writes the gradient of their features and sums the others."""
    frame = tl.program_id(0).to(tl.int64)
    program, programs = tl.program_id(1), tl.num_programs(1)
    k, e = tl.arange(0, BLOCK_K), tl.arange(0, E)
    k_mask = k < K
    class_vectors = tl.load(classes + k[:, None] * E + e[None], mask=k_mask[:, None], other=0.0).to(tl.float32)
    base_k = tl.load(base + (frame // steps) * K + k, mask=k_mask, other=0.0)
    bonus_logit = tl.load(bonus)
    grad_base = tl.zeros((BLOCK_K,), tl.float32)
    loss = tl.sum(grad_base, 0)  # 0
    count, grad_bonus = loss, loss
    grad_classes = tl.zeros((BLOCK_K, E), tl.float32)
    if BACKWARD:
        factor = tl.load(scale)
    for block in range(program, tl.cdiv(small_pixels, BLOCK_P), programs):
        cell = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside = cell < small_pixels
        i, j = cell // small_width, cell % small_width
        for part in range(F * F):
            row, column = i * F + part // F, j * F + part % F
            valid = inside & (row < height) & (column < width)
            pixel = row * width + column
            class_id = tl.load(target + frame * height * width + pixel, mask=valid, other=255).to(tl.int32)
            last_id = tl.load(last + (frame // steps) * height * width + pixel, mask=valid, other=0).to(tl.int32)
            channel = (part * E + e)[None]
            pointers = frame * stride_n + i[:, None] * stride_h + j[:, None] * stride_w + channel * stride_c
            x = tl.load(features + pointers, mask=inside[:, None], other=0.0).to(tl.float32)
            z = _logits(x, class_vectors, base_k, bonus_logit, last_id, k, k_mask, DOT)
            counted = class_id != IGNORED
            is_target = (class_id[:, None] == k[None]) & counted[:, None]
            top = tl.max(z, 1)
            exp_z = tl.exp(z - top[:, None])
            total = tl.sum(exp_z, 1)
            if BACKWARD:
                grad_z = (
                    tl.where(counted[:, None], exp_z / total[:, None] - is_target.to(tl.float32), 0.0) * factor
                )
                grad_base += tl.sum(grad_z, 0)
                grad_bonus += tl.sum(tl.where((last_id[:, None] == k[None]) & (k > 0)[None], grad_z, 0.0))
                out_pointers = frame * out_n + i[:, None] * out_h + j[:, None] * out_w + channel * out_c
                grad_x = tl.dot(grad_z, class_vectors, input_precision=DOT)
                tl.store(gradient + out_pointers, grad_x.to(gradient.dtype.element_ty), mask=inside[:, None])
                grad_classes += tl.dot(tl.trans(grad_z), x, input_precision=DOT)
            else:
                z_true = tl.sum(tl.where(is_target, z, 0.0), 1)
                loss += tl.sum(tl.where(counted, tl.log(total) + top - z_true, 0.0))
                count += tl.sum(counted.to(tl.float32))
    number = frame * programs + program
    if BACKWARD:
        tl.store(class_sums + number * BLOCK_K * E + k[:, None] * E + e[None], grad_classes)
        tl.store(base_sums + number * (BLOCK_K + 1) + k, grad_base)
        tl.store(base_sums + number * (BLOCK_K + 1) + BLOCK_K, grad_bonus)
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
        block_k = _block_k(num_classes)
        gradient = torch.empty_like(features)
        like = {"device": features.device, "dtype": torch.float32}
        class_sums = torch.empty((len(features), PROGRAMS, block_k, width), **like)
        base_sums = torch.empty((len(features), PROGRAMS, block_k + 1), **like)
        scale = grads[0][:1].float()
        outputs = {"scale": scale, "gradient": gradient, "class_sums": class_sums, "base_sums": base_sums}
        _run(features, classes_KE, base_BK, bonus, last, target, **outputs)
        grad_classes = class_sums.sum((0, 1))[:num_classes]
        grad_clip = base_sums.view(len(base_BK), -1, block_k + 1).sum(1)
        return (
            gradient,
            grad_classes.to(classes_KE.dtype),
            grad_clip[:, :num_classes],
            grad_clip[:, block_k].sum(),
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


def _block_k(num_classes: int) -> int:
    return max(16, triton.next_power_of_2(num_classes))


def _run(
    features: Tensor,
    classes_KE: Tensor,
    base_BK: Tensor,
    bonus: Tensor,
    last: Tensor,
    target: Tensor,
    **outputs: Tensor,
) -> None:
    frames, channels, rows, columns = features.shape
    num_classes, width = classes_KE.shape
    block_k = _block_k(num_classes)
    side = int((channels // width) ** 0.5)
    out = outputs.get("gradient", features)
    names = ("scale", "sums", "gradient", "class_sums", "base_sums")
    still_kernel[(frames, PROGRAMS)](
        features,
        classes_KE.to(features.dtype).contiguous(),
        base_BK.contiguous(),
        bonus,
        last.contiguous(),
        target.contiguous(),
        *(outputs.get(name, bonus) for name in names),
        frames // len(base_BK),
        rows * columns,
        columns,
        *last.shape[1:],
        *features.stride(),
        *out.stride(),
        K=num_classes,
        BLOCK_K=block_k,
        E=width,
        F=side,
        BLOCK_P=max(16, LOGITS // block_k),
        BACKWARD="gradient" in outputs,
        DOT=dot_precision(features.dtype),
    )
