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
    sure,
    num_pixels,
    per_frame,
    stride_n,
    stride_k,
    stride_p,
    K: tl.constexpr,
    KB: tl.constexpr,
    PB: tl.constexpr,
):
    """Writes class and probability of a block of pixels."""
    k = tl.arange(0, KB)
    at = tl.program_id(0) * PB + tl.arange(0, PB)
    inside = at < num_pixels
    n = (at // per_frame).to(tl.int64)
    p = (at % per_frame).to(tl.int64)
    here = logits + n[:, None] * stride_n + p[:, None] * stride_p + k[None].to(tl.int64) * stride_k
    z = tl.load(here, mask=inside[:, None] & (k < K)[None], other=float("-inf")).to(tl.float32)
    top = tl.max(z, 1)
    first = tl.min(tl.where(z == top[:, None], k[None], KB), 1)
    total = tl.sum(tl.exp(z - tl.where(inside, top, 0.0)[:, None]), 1)
    tl.store(ids + at, first.to(tl.uint8), mask=inside)
    tl.store(sure + at, 1.0 / total, mask=inside)


def most_probable(logits_NKHW: Tensor) -> tuple[Tensor, Tensor]:
    """Returns class ids (N, H, W) uint8, of several alike the first, and their softmax probability, float32.

    Args:
        logits_NKHW: of up to 256 classes; float16, bfloat16 or float32.
    """
    frames, classes, height, width = logits_NKHW.shape
    logits_NKP = logits_NKHW.flatten(2)
    ids = torch.empty((frames, height, width), dtype=torch.uint8, device=logits_NKHW.device)
    sure = torch.empty((frames, height, width), dtype=torch.float32, device=logits_NKHW.device)
    wide = triton.next_power_of_2(classes)
    block = max(4, LOGITS // wide)
    decode_kernel[(triton.cdiv(ids.numel(), block),)](
        logits_NKP, ids, sure, ids.numel(), height * width, *logits_NKP.stride(), K=classes, KB=wide, PB=block
    )
    return ids, sure
