"""Non-maximum suppression of many images at once, without synchronising host and device.

Torchvision's takes an image at a time, and the host waits for how many boxes each keeps.

Shapes: B images, N boxes of each, W = N / 32 words of bits.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

WORD = tl.constexpr(32)


@triton.jit
def overlaps_kernel(boxes, words, threshold, N, W, BITS: tl.constexpr):
    """Stores a word for each of 32 boxes: the bits of those of 32 later boxes whose IoU is above the threshold."""
    b = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * BITS + tl.arange(0, BITS)
    bit = tl.arange(0, BITS)
    j = tl.program_id(2) * BITS + bit
    own, other = boxes + (b * N + i) * 4, boxes + (b * N + j) * 4
    x1, y1 = tl.load(own, mask=i < N, other=0.0), tl.load(own + 1, mask=i < N, other=0.0)
    x2, y2 = tl.load(own + 2, mask=i < N, other=0.0), tl.load(own + 3, mask=i < N, other=0.0)
    u1, v1 = tl.load(other, mask=j < N, other=0.0), tl.load(other + 1, mask=j < N, other=0.0)
    u2, v2 = tl.load(other + 2, mask=j < N, other=0.0), tl.load(other + 3, mask=j < N, other=0.0)
    width = tl.minimum(x2[:, None], u2[None]) - tl.maximum(x1[:, None], u1[None])
    height = tl.minimum(y2[:, None], v2[None]) - tl.maximum(y1[:, None], v1[None])
    intersection = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    union = ((x2 - x1) * (y2 - y1))[:, None] + ((u2 - u1) * (v2 - v1))[None] - intersection
    suppresses = (intersection > threshold * union) & (j[None] > i[:, None]) & (j < N)[None]
    word = tl.sum(suppresses.to(tl.int32) << bit[None], 1)
    tl.store(words + (b * N + i) * W + tl.program_id(2), word, mask=i < N)


@triton.jit
def keep_kernel(words, valid, keep, N, W, BLOCK_W: tl.constexpr, BITS: tl.constexpr):
    """Goes through the boxes of an image, best first: one that is kept removes those that it overlaps."""
    b = tl.program_id(0).to(tl.int64)
    w = tl.arange(0, BLOCK_W)
    removed = tl.zeros((BLOCK_W,), tl.int32)
    for i in range(N):
        row = tl.load(words + (b * N + i) * W + w, mask=(w < W) & (w >= i // BITS), other=0)
        word = tl.sum(tl.where(w == i // BITS, removed, 0), 0)
        kept = (tl.load(valid + b * N + i).to(tl.int32) & ~(word >> (i % BITS)) & 1) != 0
        removed = tl.where(kept, removed | row, removed)
        tl.store(keep + b * N + i, kept.to(tl.int8))


def keep_by_nms(boxes_BN4: Tensor, valid_BN: Tensor, threshold: float) -> Tensor:
    """Returns which boxes (B, N) are kept, bool.

    Args:
        boxes_BN4: (x1, y1, x2, y2) float32, best first.
        valid_BN: bool; others are not kept, and remove none.
        threshold: intersection over union above which the worse of two boxes goes.
    """
    batch, count, _ = boxes_BN4.shape
    num_words = triton.cdiv(count, WORD.value)
    words = torch.empty((batch, count, num_words), dtype=torch.int32, device=boxes_BN4.device)
    keep = torch.empty((batch, count), dtype=torch.int8, device=boxes_BN4.device)
    overlaps_kernel[(batch, num_words, num_words)](
        boxes_BN4.contiguous(), words, threshold, count, num_words, BITS=WORD.value
    )
    keep_kernel[(batch,)](
        words,
        valid_BN.to(torch.int8),
        keep,
        count,
        num_words,
        BLOCK_W=triton.next_power_of_2(num_words),
        BITS=WORD.value,
        num_warps=1,
    )
    return keep.bool()
