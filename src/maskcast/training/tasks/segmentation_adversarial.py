"""Adversarial training: a discriminator learns to tell a segmenter's masks from true ones.

Both are trained in the same step by one optimiser. The segmenter's loss passes through the discriminator without a
gradient for the discriminator's weights. The discriminator's loss is computed on detached predictions. So each
learns from its own loss only, and one checkpoint holds both.

Shapes: N pictures, H height, W width, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from maskcast.distributed import all_means
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.arithmetic import at_least_float32
from maskcast.models.segmentation.discriminator import MIN_SIDE, Discriminator, predicted_maps, true_maps


class Adversary:
    """A discriminator of label maps of kind ``classes``, with the losses of both networks.

    Args:
        maps: label maps of the segmenter.
        size: height and width of the samples.
        width: channels of the discriminator's first convolution.

    Raises:
        MaskcastError: if no map is of kind ``classes``, or the samples are too small.
    """

    def __init__(self, maps: Sequence[LabelMap], size: tuple[int, int], width: int) -> None:
        self._map_indices = [n for n, label_map in enumerate(maps) if label_map.kind == "classes"]
        self._classes = [maps[n].num_classes for n in self._map_indices]
        if not self._map_indices:
            names = ", ".join(label_map.name for label_map in maps)
            raise MaskcastError(
                f"train_masker.adversarial: needs a label map of kind classes, got {names}; set it to null"
            )
        if min(size) < MIN_SIDE:
            raise MaskcastError(
                f"train_masker.adversarial: samples of {size[0]}x{size[1]} are too small for its discriminator; "
                f"choose frames and augment.crop of at least {MIN_SIDE}x{MIN_SIDE}, or set it to null"
            )
        self.discriminator = Discriminator(sum(self._classes), width)

    def loss(
        self, logits: Sequence[Tensor], masks: Sequence[Tensor], weight: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns ``weight`` times the segmenter's loss plus the discriminator's loss, and both as numbers to log.

        The segmenter's loss is the cross entropy of its predictions to the label "true". The discriminator's loss
        is the cross entropy of predictions to "found" plus that of true masks to "true".

        Args:
            logits: (N, K, H, W) of each map.
            masks: true masks (N, H, W) of each map.
            weight: of the segmenter's loss.
        """
        true_masks = [masks[n] for n in self._map_indices]
        predicted = predicted_maps([logits[n] for n in self._map_indices], true_masks)
        discriminator = self.discriminator
        discriminator_loss = _entropy(discriminator(predicted.detach()), 0) + _entropy(
            discriminator(true_maps(true_masks, self._classes).to(predicted.dtype)), 1
        )
        frozen = {name: weights.detach() for name, weights in discriminator.named_parameters()}
        adversarial_loss = _entropy(functional_call(discriminator, frozen, (predicted,)), 1)
        numbers = {"adversarial": adversarial_loss.detach(), "discriminator": discriminator_loss.detach()}
        return weight * adversarial_loss + discriminator_loss, numbers

    def zero_loss(self) -> Tensor:
        """Returns 0 with a gradient of 0 for each weight, because distributed training expects all gradients."""
        return torch.stack([0 * weights.sum() for weights in self.discriminator.parameters()]).sum()


def _entropy(logits_N1hw: Tensor, truth: int) -> Tensor:
    """Returns the mean cross entropy to ``truth`` over the patches of all processes."""
    logits_N1hw = at_least_float32(logits_N1hw)
    losses = F.binary_cross_entropy_with_logits(logits_N1hw, torch.full_like(logits_N1hw, truth), reduction="none")
    return all_means([(1.0, losses)])
