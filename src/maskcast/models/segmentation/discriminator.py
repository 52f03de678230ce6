"""A discriminator that tells true masks from masks of a segmenter.

It has the architecture of system 3 (daniCh8/hand-amodal-segmentation-pytorch, src/models/discriminator.py): five
convolutions of 4x4. That one saw class ids, through which no gradient flows. This one sees a channel for each
class of each map: the softmax of predictions, or true masks as one-hot.

Shapes: N pictures, H height, W width, C channels: the classes of all maps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from maskcast.labels import IGNORE
from maskcast.models.arithmetic import at_least_float32
from maskcast.models.segmentation.soft_dice import one_hot

MIN_SIDE = 64  # least pixels of a side: four convolutions halve it, the fifth needs 4x4


class Discriminator(nn.Sequential):
    """Maps (N, C, H, W) to logits (N, 1, h, w), high for true patches; h = H // 16 - 3, and w likewise.

    The first four convolutions have stride 2 and LeakyReLU of 0.2, with batch norm from the second on; the last
    one has stride 1 and no padding.

    Args:
        channels: C.
        width: channels after the first convolution; each of the next three has twice as many.
    """

    def __init__(self, channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        for k in range(4):
            before, after = channels if k == 0 else width << (k - 1), width << k
            layers.append(nn.Conv2d(before, after, 4, stride=2, padding=1, bias=k == 0))
            if k:
                layers.append(nn.BatchNorm2d(after))
            layers.append(nn.LeakyReLU(0.2))
        super().__init__(*layers, nn.Conv2d(width << 3, 1, 4))


def predicted_maps(logits: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """Returns the softmax of all maps, (N, C, H, W); 0 where there is no label, as in ``true_maps``.

    Args:
        logits: (N, K, H, W) of each map, floating; the result is float32, or float64 for float64.
        masks: (N, H, W) class ids of each map, 255 = no label.
    """
    layers = []
    for each, mask in zip(logits, masks, strict=True):
        layers.append(at_least_float32(each).softmax(1) * (mask != IGNORE)[:, None])
    return torch.cat(layers, 1)


def true_maps(masks: Sequence[Tensor], classes: Sequence[int]) -> Tensor:
    """Returns masks (N, H, W) of each map as one-hot channels (N, C, H, W) float32; 0 where there is no label.

    Args:
        masks: class ids of each map, 255 = no label.
        classes: number of classes of each map.
    """
    return torch.cat([one_hot(*each) for each in zip(masks, classes, strict=True)], 1).float()
