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
    KB: tl.constexpr,
    PB: tl.constexpr,
    SOFTMAX: tl.constexpr,
    SIGMOID_FOCAL: tl.constexpr,
    SOFTMAX_FOCAL: tl.constexpr,
    GAMMA: tl.constexpr,
):
    """Computes the sums over some blocks of pixels, and stores the log-sum-exp of each pixel."""
    k = tl.arange(0, KB)
    known = k < K
    count = tl.zeros((KB,), tl.float32)
    ce, mass, hit, focal = count, count, count, count
    program = tl.program_id(0)
    for block in range(program, tl.cdiv(num_pixels, PB), tl.num_programs(0)):
        at = block * PB + tl.arange(0, PB)
        inside = at < num_pixels
        n = (at // per_frame).to(tl.int64)
        p = (at % per_frame).to(tl.int64)
        y = tl.load(target + at, mask=inside, other=255).to(tl.int32)
        kept = inside & (y != IGNORED)
        here = logits + n[:, None] * stride_n + p[:, None] * stride_p + k[None].to(tl.int64) * stride_k
        z = tl.load(here, mask=inside[:, None] & known[None], other=0.0).to(tl.float32)
        true = (y[:, None] == k[None]) & kept[:, None]
        count += tl.sum(true.to(tl.float32), 0)
        z_true = tl.sum(tl.where(true, z, 0.0), 1)
        if SOFTMAX:
            top = tl.max(tl.where(known[None], z, float("-inf")), 1)
            e = tl.where(known[None], tl.exp(z - top[:, None]), 0.0)
            total = tl.sum(e, 1)
            log_total = tl.log(total) + top
            tl.store(lse + at, tl.where(kept, log_total, float("inf")), mask=inside)
            nll = tl.where(kept, log_total - z_true, 0.0)
            ce += tl.sum(tl.where(true, nll[:, None], 0.0), 0)
            share = tl.where(kept[:, None], e / total[:, None], 0.0)
            mass += tl.sum(share, 0)
            hit += tl.sum(tl.where(true, share, 0.0), 0)
            if SOFTMAX_FOCAL:
                missed = _power(1.0 - tl.exp(-nll), GAMMA) * nll
                focal += tl.sum(tl.where(true, missed[:, None], 0.0), 0)
        if SIGMOID_FOCAL:
            each = _focal(tl.where(true, -z, z), GAMMA)
            focal += tl.sum(tl.where(kept[:, None] & known[None], each, 0.0), 0)
    out = sums + program * 5 * KB + k
    tl.store(out, count)
    tl.store(out + KB, ce)
    tl.store(out + 2 * KB, mass)
    tl.store(out + 3 * KB, hit)
    tl.store(out + 4 * KB, focal)


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
    KB: tl.constexpr,
    PB: tl.constexpr,
    SOFTMAX: tl.constexpr,
    DICE: tl.constexpr,
    SIGMOID_FOCAL: tl.constexpr,
    SOFTMAX_FOCAL: tl.constexpr,
    GAMMA: tl.constexpr,
):
    """Writes the gradient of a block of pixels."""
    k = tl.arange(0, KB)
    known = k < K
    at = tl.program_id(0) * PB + tl.arange(0, PB)
    inside = at < num_pixels
    n = (at // per_frame).to(tl.int64)
    p = (at % per_frame).to(tl.int64)
    y = tl.load(target + at, mask=inside, other=255).to(tl.int32)
    kept = inside & (y != IGNORED)
    both = inside[:, None] & known[None]
    wide = k[None].to(tl.int64)
    z = tl.load(logits + n[:, None] * stride_n + p[:, None] * stride_p + wide * stride_k, mask=both, other=0.0)
    z = z.to(tl.float32)
    true = (y[:, None] == k[None]) & kept[:, None]
    ce = tl.load(coefficients + k, mask=known, other=0.0)
    dice_sum = tl.load(coefficients + K + k, mask=known, other=0.0)
    dice_hit = tl.load(coefficients + 2 * K + k, mask=known, other=0.0)
    focal = tl.load(coefficients + 3 * K)
    out = tl.zeros((PB, KB), tl.float32)
    if SOFTMAX:
        log_total = tl.load(lse + at, mask=inside, other=float("inf"))
        share = tl.where(known[None], tl.exp(z - log_total[:, None]), 0.0)
        share_true = tl.sum(tl.where(true, share, 0.0), 1)
        pull = tl.sum(tl.where(true, ce[None], 0.0), 1)  # d loss / d cross entropy of the pixel
        if SOFTMAX_FOCAL:
            nll = tl.where(kept, log_total - tl.sum(tl.where(true, z, 0.0), 1), 0.0)
            miss = tl.maximum(1.0 - share_true, 1e-30)
            slope = _power(miss, GAMMA)
            if GAMMA != 0.0:
                slope += GAMMA * (_power(miss, GAMMA) / miss) * share_true * nll
            pull += focal * slope
        at_true = -pull
        if DICE:
            hit = tl.sum(tl.where(true, dice_hit[None], 0.0), 1) * share_true
            pull -= hit + tl.sum(share * dice_sum[None], 1)
            at_true += hit
            out = share * (dice_sum[None] + pull[:, None])
        else:
            out = share * pull[:, None]
        out += tl.where(true, at_true[:, None], 0.0)
    if SIGMOID_FOCAL:
        slope = _focal_slope(tl.where(true, -z, z), GAMMA)
        out += tl.where(kept[:, None], focal * tl.where(true, -slope, slope), 0.0)
    to = gradient + n[:, None] * out_n + p[:, None] * out_p + wide * out_k
    tl.store(to, out.to(gradient.dtype.element_ty), mask=both)


def sums(logits_NKP: Tensor, target_NP: Tensor, terms: Terms) -> tuple[Tensor, Tensor]:
    """Returns what ``loss_chunks.sums`` does, but the log-sum-exp of all pixels, whatever the terms.

    Args:
        logits_NKP: float16, bfloat16 or float32.
        target_NP: class ids, 255 is ignored.
        terms: of the loss.
    """
    frames, classes, pixels = logits_NKP.shape
    wide = triton.next_power_of_2(classes)
    block = max(16, LOGITS // wide)
    programs = min(PROGRAMS, triton.cdiv(frames * pixels, block))
    lse_N1P = logits_NKP.new_empty((frames, 1, pixels), dtype=torch.float32)
    parts = logits_NKP.new_empty((programs, 5, wide), dtype=torch.float32)
    sums_kernel[(programs,)](
        logits_NKP,
        target_NP.contiguous(),
        lse_N1P,
        parts,
        frames * pixels,
        pixels,
        *logits_NKP.stride(),
        K=classes,
        KB=wide,
        PB=block,
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
    wide = triton.next_power_of_2(classes)
    block = max(16, LOGITS // wide)
    gradient_kernel[(triton.cdiv(frames * pixels, block),)](
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
        KB=wide,
        PB=block,
        SOFTMAX=terms.softmax,
        DICE=terms.dice,
        SIGMOID_FOCAL=terms.sigmoid_focal,
        SOFTMAX_FOCAL=terms.softmax_focal,
        GAMMA=terms.gamma,
    )
