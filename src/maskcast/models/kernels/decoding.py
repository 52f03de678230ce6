"""The most probable class of each pixel and its probability, in one pass over the logits.

Shapes: N frames, K classes, H height, W width, P = H W.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

LOGITS = 2048  # of a program


@triton.jit
def decode_kernel(
    logits,
    ids,
    probability,
    num_pixels,
    per_frame,
    stride_n,
    stride_k,
    stride_p,
    K: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Writes class and probability of a block of pixels."""
    k = tl.arange(0, BLOCK_K)
    pixel = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    inside = pixel < num_pixels
    n = (pixel // per_frame).to(tl.int64)
    p = (pixel % per_frame).to(tl.int64)
    pointers = logits + n[:, None] * stride_n + p[:, None] * stride_p + k[None].to(tl.int64) * stride_k
    z = tl.load(pointers, mask=inside[:, None] & (k < K)[None], other=float("-inf")).to(tl.float32)
    top = tl.max(z, 1)
    first = tl.min(tl.where(z == top[:, None], k[None], BLOCK_K), 1)
    total = tl.sum(tl.exp(z - tl.where(inside, top, 0.0)[:, None]), 1)
    tl.store(ids + pixel, first.to(tl.uint8), mask=inside)
    tl.store(probability + pixel, 1.0 / total, mask=inside)


def most_probable(logits_NKHW: Tensor) -> tuple[Tensor, Tensor]:
    """Returns class ids (N, H, W) uint8, of several alike the first, and their softmax probability, float32.

    Args:
        logits_NKHW: of up to 256 classes; float16, bfloat16 or float32.
    """
    frames, classes, height, width = logits_NKHW.shape
    logits_NKP = logits_NKHW.flatten(2)
    ids = torch.empty((frames, height, width), dtype=torch.uint8, device=logits_NKHW.device)
    probability = torch.empty((frames, height, width), dtype=torch.float32, device=logits_NKHW.device)
    block_k = triton.next_power_of_2(classes)
    block_p = max(4, LOGITS // block_k)
    decode_kernel[(triton.cdiv(ids.numel(), block_p),)](
        logits_NKP,
        ids,
        probability,
        ids.numel(),
        height * width,
        *logits_NKP.stride(),
        K=classes,
        BLOCK_K=block_k,
        BLOCK_P=block_p,
    )
    return ids, probability
