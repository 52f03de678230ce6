"""Frames to masks: a masker at work.

Legend: B batch, H height, W width, C = 3 colour channels, K classes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from maskcast.models.segmentation.base import Masker

Prediction = TypeVar("Prediction")


def predict_masks(masker: nn.Module, frames_BHWC: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Masks one batch of frames, in eval mode, on the device where the masker is.

    Args:
        masker: forward as :class:`Masker`.
        frames_BHWC: uint8 RGB.
        precision: ``bf16`` or ``fp32``.

    Returns:
        masks_BHW uint8 class ids, and confidence_BHW float32: the softmax probability of that class.
    """
    masks_BHW, confidence_BHW, _ = classify(masker, frames_BHWC, precision)
    return masks_BHW.to(torch.uint8).cpu().numpy(), confidence_BHW.cpu().numpy()


def classify(masker: nn.Module, frames_BHWC: np.ndarray, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """Returns on the masker's device what ``predict_masks`` does, and the float32 logits_BHWK behind it."""
    device = next(masker.parameters()).device
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        logits_BKHW = masker(torch.tensor(frames_BHWC).to(device, non_blocking=True))
        # argmax over the innermost axis is four times as fast as over a strided one
        logits_BHWK = logits_BKHW.permute(0, 2, 3, 1).contiguous().float()
        top_BHW, masks_BHW = logits_BHWK.max(-1)
        return masks_BHW, (top_BHW - logits_BHWK.logsumexp(-1)).exp_(), logits_BHWK


def quantise(confidence: np.ndarray, levels: int) -> np.ndarray:
    """Returns probabilities in [0, 1] as uint8, rounded to ``levels`` even steps from 0 to 255."""
    steps = levels - 1
    return (np.rint(confidence * steps) * (255 / steps)).round().astype(np.uint8)


def predict_on_all(
    predict: Callable[[nn.Module, np.ndarray, str], Prediction],
    replicas: Sequence[Masker],
    batches: Iterable[np.ndarray],
    precision: str,
) -> Iterator[Prediction]:
    """Yields what ``predict`` returns for every batch, in order; the replicas work side by side.

    Args:
        predict: ``predict_masks`` or another of its arguments.
        replicas: copies of one masker, each on a device of its own.
        batches: uint8 RGB frames_BHWC each; about two per replica are in memory at once.
        precision: ``bf16`` or ``fp32``.
    """
    pools = [ThreadPoolExecutor(1, thread_name_prefix="masker") for _ in replicas]
    running: deque[Future[Prediction]] = deque()
    try:
        for k, frames_BHWC in enumerate(batches):
            turn = k % len(replicas)
            running.append(pools[turn].submit(predict, replicas[turn], frames_BHWC, precision))
            if len(running) == 2 * len(replicas):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)
