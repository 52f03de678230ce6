"""MaskLoss on a GPU: one kernel computes the sums, a second one the gradient, each reading the logits once.

PyTorch's operations would read the logits of a batch about forty times. A program handles a block of pixels with
all classes, whose logits are adjacent in channels_last. The kernels are written in Triton, which comes with
PyTorch's builds for CUDA. With ``TRITON_INTERPRET=1`` they run on a CPU, which is how they are tested.

Shapes: N frames, K classes, P pixels of a frame.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

import maskcast.models.kernels  # noqa: F401 - its setting of Triton is for all kernels
from maskcast.models.segmentation.loss_terms import Terms

IGNORED = tl.constexpr(255)
LOGITS = 1024  # logits per block
PROGRAMS = 1024  # programs of the first kernel; each sums many blocks before it writes


@triton.jit
def _softplus(z):
    return tl.maximum(z, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(z)))


@triton.jit
def _power(x, gamma: tl.constexpr):
    if gamma == 0.0:
        return x * 0.0 + 1.0
    if gamma == 1.0:
        return x
    if gamma == 2.0:
        return x * x
    return tl.exp(gamma * tl.log(tl.maximum(x, 1e-30)))


@triton.jit
def _focal(z, gamma: tl.constexpr):
    return _power(tl.sigmoid(z), gamma) * _softplus(z)


@triton.jit
def _focal_slope(z, gamma: tl.constexpr):
    p = tl.sigmoid(z)
    return _power(p, gamma) * (p + gamma * (1.0 - p) * _softplus(z))


@triton.jit
def sums_kernel(
    logits,
    target,
    lse,
    sums,
    num_pixels,
    per_frame,
    stride_n,
    stride_k,
    stride_p,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    SOFTMAX: tl.constexpr,
    SIGMOID_FOCAL: tl.constexpr,
    SOFTMAX_FOCAL: tl.constexpr,
    GAMMA: tl.constexpr,
):
    """Computes the sums over some blocks of pixels, and stores the log-sum-exp of each pixel."""
    k = tl.arange(0, BLOCK_K)
    k_mask = k < K
    count = tl.zeros((BLOCK_K,), tl.float32)
    ce, mass, hit, focal = count, count, count, count
    program = tl.program_id(0)
    for block in range(program, tl.cdiv(num_pixels, BLOCK_P), tl.num_programs(0)):
        pixel = block * BLOCK_P + tl.arange(0, BLOCK_P)
        inside = pixel < num_pixels
        n = (pixel // per_frame).to(tl.int64)
        p = (pixel % per_frame).to(tl.int64)
        class_id = tl.load(target + pixel, mask=inside, other=255).to(tl.int32)
        counted = inside & (class_id != IGNORED)
        pointers = logits + n[:, None] * stride_n + p[:, None] * stride_p + k[None].to(tl.int64) * stride_k
        z = tl.load(pointers, mask=inside[:, None] & k_mask[None], other=0.0).to(tl.float32)
        is_target = (class_id[:, None] == k[None]) & counted[:, None]
        count += tl.sum(is_target.to(tl.float32), 0)
        z_true = tl.sum(tl.where(is_target, z, 0.0), 1)
        if SOFTMAX:
            top = tl.max(tl.where(k_mask[None], z, float("-inf")), 1)
            e = tl.where(k_mask[None], tl.exp(z - top[:, None]), 0.0)
            total = tl.sum(e, 1)
            log_total = tl.log(total) + top
            tl.store(lse + pixel, tl.where(counted, log_total, float("inf")), mask=inside)
            nll = tl.where(counted, log_total - z_true, 0.0)
            ce += tl.sum(tl.where(is_target, nll[:, None], 0.0), 0)
            probability = tl.where(counted[:, None], e / total[:, None], 0.0)
            mass += tl.sum(probability, 0)
            hit += tl.sum(tl.where(is_target, probability, 0.0), 0)
            if SOFTMAX_FOCAL:
                softmax_focal = _power(1.0 - tl.exp(-nll), GAMMA) * nll
                focal += tl.sum(tl.where(is_target, softmax_focal[:, None], 0.0), 0)
        if SIGMOID_FOCAL:
            sigmoid_focal = _focal(tl.where(is_target, -z, z), GAMMA)
            focal += tl.sum(tl.where(counted[:, None] & k_mask[None], sigmoid_focal, 0.0), 0)
    out = sums + program * 5 * BLOCK_K + k
    tl.store(out, count)
    tl.store(out + BLOCK_K, ce)
    tl.store(out + 2 * BLOCK_K, mass)
    tl.store(out + 3 * BLOCK_K, hit)
    tl.store(out + 4 * BLOCK_K, focal)


@triton.jit
def gradient_kernel(
    logits,
    target,
    lse,
    gradient,
    coefficients,
    num_pixels,
    per_frame,
    stride_n,
    stride_k,
    stride_p,
    out_n,
    out_k,
    out_p,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
    SOFTMAX: tl.constexpr,
    DICE: tl.constexpr,
    SIGMOID_FOCAL: tl.constexpr,
    SOFTMAX_FOCAL: tl.constexpr,
    GAMMA: tl.constexpr,
):
    """Writes the gradient of a block of pixels."""
    k = tl.arange(0, BLOCK_K)
    k_mask = k < K
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = pixel < num_pixels
    n = (pixel // per_frame).to(tl.int64)
    p = (pixel % per_frame).to(tl.int64)
    class_id = tl.load(target + pixel, mask=inside, other=255).to(tl.int32)
    counted = inside & (class_id != IGNORED)
    mask = inside[:, None] & k_mask[None]
    k_wide = k[None].to(tl.int64)
    z = tl.load(logits + n[:, None] * stride_n + p[:, None] * stride_p + k_wide * stride_k, mask=mask, other=0.0)
    z = z.to(tl.float32)
    is_target = (class_id[:, None] == k[None]) & counted[:, None]
    ce = tl.load(coefficients + k, mask=k_mask, other=0.0)
    dice_sum = tl.load(coefficients + K + k, mask=k_mask, other=0.0)
    dice_hit = tl.load(coefficients + 2 * K + k, mask=k_mask, other=0.0)
    focal = tl.load(coefficients + 3 * K)
    out = tl.zeros((BLOCK_P, BLOCK_K), tl.float32)
    if SOFTMAX:
        log_total = tl.load(lse + pixel, mask=inside, other=float("inf"))
        probability = tl.where(k_mask[None], tl.exp(z - log_total[:, None]), 0.0)
        p_target = tl.sum(tl.where(is_target, probability, 0.0), 1)
        grad_nll = tl.sum(tl.where(is_target, ce[None], 0.0), 1)  # d loss / d cross entropy of the pixel
        if SOFTMAX_FOCAL:
            nll = tl.where(counted, log_total - tl.sum(tl.where(is_target, z, 0.0), 1), 0.0)
            q_target = tl.maximum(1.0 - p_target, 1e-30)
            slope = _power(q_target, GAMMA)
            if GAMMA != 0.0:
                slope += GAMMA * (_power(q_target, GAMMA) / q_target) * p_target * nll
            grad_nll += focal * slope
        grad_target = -grad_nll
        if DICE:
            hit = tl.sum(tl.where(is_target, dice_hit[None], 0.0), 1) * p_target
            grad_nll -= hit + tl.sum(probability * dice_sum[None], 1)
            grad_target += hit
            out = probability * (dice_sum[None] + grad_nll[:, None])
        else:
            out = probability * grad_nll[:, None]
        out += tl.where(is_target, grad_target[:, None], 0.0)
    if SIGMOID_FOCAL:
        slope = _focal_slope(tl.where(is_target, -z, z), GAMMA)
        out += tl.where(counted[:, None], focal * tl.where(is_target, -slope, slope), 0.0)
    out_pointers = gradient + n[:, None] * out_n + p[:, None] * out_p + k_wide * out_k
    tl.store(out_pointers, out.to(gradient.dtype.element_ty), mask=mask)


def sums(logits_NKP: Tensor, target_NP: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """Returns what ``loss_chunks.sums`` does, but the log-sum-exp of all pixels, whatever the terms.

    Args:
        logits_NKP: float16, bfloat16 or float32.
        target_NP: class ids, 255 is ignored.
        terms: of the loss.
    """
    frames, classes, pixels = logits_NKP.shape
    block_k = triton.next_power_of_2(classes)
    block_p = max(16, LOGITS // block_k)
    programs = min(PROGRAMS, triton.cdiv(frames * pixels, block_p))
    lse_N1P = logits_NKP.new_empty((frames, 1, pixels), dtype=torch.float32)
    parts = logits_NKP.new_empty((programs, 5, block_k), dtype=torch.float32)
    sums_kernel[(programs,)](
        logits_NKP,
        target_NP.contiguous(),
        lse_N1P,
        parts,
        frames * pixels,
        pixels,
        *logits_NKP.stride(),
        K=classes,
        BLOCK_K=block_k,
        BLOCK_P=block_p,
        SOFTMAX=terms.softmax,
        SIGMOID_FOCAL=terms.sigmoid_focal,
        SOFTMAX_FOCAL=terms.softmax_focal,
        GAMMA=terms.gamma,
    )
    by_class = parts.sum(0, dtype=torch.float64)[:, :classes]
    return torch.cat([by_class[:4].flatten(), by_class[4].sum()[None]]), lse_N1P


def fill_gradient(
    gradient_NKP: Tensor,
    logits_NKP: Tensor,
    target_NP: Tensor,
    lse_N1P: Tensor,
    coefficients: Tensor,
    terms: Terms,
) -> None:
    """Writes the gradient of the logits, as ``loss_chunks.fill_gradient`` does; ``coefficients`` are float32."""
    frames, classes, pixels = logits_NKP.shape
    block_k = triton.next_power_of_2(classes)
    block_p = max(16, LOGITS // block_k)
    gradient_kernel[(triton.cdiv(frames * pixels, block_p),)](
        logits_NKP,
        target_NP.contiguous(),
        lse_N1P,
        gradient_NKP,
        coefficients,
        frames * pixels,
        pixels,
        *logits_NKP.stride(),
        *gradient_NKP.stride(),
        K=classes,
        BLOCK_K=block_k,
        BLOCK_P=block_p,
        SOFTMAX=terms.softmax,
        DICE=terms.dice,
        SIGMOID_FOCAL=terms.sigmoid_focal,
        SOFTMAX_FOCAL=terms.softmax_focal,
        GAMMA=terms.gamma,
    )
