"""The SoftDice loss of system 1: a Dice score of each class in each frame.

Shapes: N frames, K classes, H height, W width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from maskcast.distributed import all_sum
from maskcast.labels import IGNORE


def soft_dice(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Returns 1 - the mean over frames and classes of ``(2 tp + s) / (2 tp + fp + fn + s)``, with soft counts.

    That is JunMa11/SegLoss's SoftDiceLoss (losses_pytorch/dice_loss.py, with ``batch_dice=False``), background
    included. Unlike the Dice of `MaskLoss`, which counts over the whole batch, each frame counts the same, however
    small its objects are. A class that is absent and not predicted scores 1 by ``s``.

    Args:
        logits: (N, K, H, W) floating.
        target: (N, H, W) class ids, 255 left out.
        smooth: s, above 0.
    """
    logits_NKHW = logits.to(torch.promote_types(logits.dtype, torch.float32))
    known_N1HW = (target != IGNORE)[:, None]
    ids_NHW = target.long().masked_fill(target == IGNORE, 0)
    found_NKHW = logits_NKHW.softmax(1) * known_N1HW
    true_NKHW = F.one_hot(ids_NHW, logits.shape[1]).movedim(-1, 1).to(found_NKHW.dtype) * known_N1HW
    overlap_NK = 2 * (found_NKHW * true_NKHW).sum((2, 3)) + smooth
    union_NK = (found_NKHW + true_NKHW).sum((2, 3)) + smooth
    total = all_sum((overlap_NK / union_NK).sum())
    count = all_sum(total.new_tensor(float(overlap_NK.numel())))
    loss: Tensor = 1 - total / count
    return loss
