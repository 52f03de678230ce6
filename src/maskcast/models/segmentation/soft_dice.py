"""The SoftDice loss of system 1: a Dice score of each class in each frame.

Shapes: N frames, K classes, H height, W width.
"""

from torch import Tensor
from torch.nn import functional as F

from maskcast.distributed import all_means
from maskcast.labels import IGNORE
from maskcast.models.arithmetic import at_least_float32


def one_hot(target_NHW: Tensor, num_classes: int) -> Tensor:
    """Returns class ids as one-hot channels (N, K, H, W), int64; all are 0 where there is no label."""
    known_NHW = target_NHW != IGNORE
    ids_NHW = target_NHW.long().masked_fill(~known_NHW, 0)
    return F.one_hot(ids_NHW, num_classes).movedim(-1, 1) * known_NHW[:, None]


def soft_dice(logits: Tensor, target: Tensor, smooth: float) -> Tensor:
    """Returns 1 - the mean over frames and classes of ``(2 tp + s) / (2 tp + fp + fn + s)``, with soft counts.

    It is JunMa11/SegLoss's SoftDiceLoss (losses_pytorch/dice_loss.py, with ``batch_dice=False``), background
    included. Each frame has the same weight, however small its objects are, whereas the Dice of `MaskLoss` is
    counted over the whole batch. With ``s``, a class that is absent and not predicted scores 1.

    Args:
        logits: (N, K, H, W) floating.
        target: (N, H, W) class ids, 255 is ignored.
        smooth: s, above 0.
    """
    predicted_NKHW = at_least_float32(logits).softmax(1) * (target != IGNORE)[:, None]
    true_NKHW = one_hot(target, logits.shape[1]).to(predicted_NKHW.dtype)
    overlap_NK = 2 * (predicted_NKHW * true_NKHW).sum((2, 3)) + smooth
    union_NK = (predicted_NKHW + true_NKHW).sum((2, 3)) + smooth
    return 1 - all_means([(1.0, overlap_NK / union_NK)])
