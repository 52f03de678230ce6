"""The loss of a label map over the windows of a batch, whose frames may come in chunks.

Legend: B samples, T frames of a chunk, H height, W width, K channels of logits.
"""

import torch
from torch import Tensor, nn

from maskcast.distributed import all_sum
from maskcast.models.segmentation.loss_chunks import count_classes
from maskcast.models.segmentation.losses import AlphaLoss, Part
from maskcast.models.segmentation.matte_losses import MatteLoss
from maskcast.training.tasks.segmentation_recoloured import ClassGroups


class MapLoss:
    """The loss of some samples of a batch, given their logits chunk by chunk.

    The losses of all chunks add up to that of the whole windows, whatever the length of a chunk, where that is a
    sum over pixels or frames (see `Part`).

    Args:
        criterion: of the label map.
        masks_BTHW: of all samples of the batch, and all frames that count.
        samples: to take of the batch.
        groups: groups of classes to tell apart, instead of the classes.
        weight: of the loss.
    """

    def __init__(
        self,
        criterion: nn.Module,
        masks_BTHW: Tensor,
        samples: slice,
        groups: ClassGroups | None = None,
        weight: Tensor | float = 1.0,
    ) -> None:
        self._criterion, self._samples, self._groups, self._weight = criterion, samples, groups, weight
        masks_BTHW = masks_BTHW[samples]
        self._masks_BTHW = masks_BTHW if groups is None else groups.masks(masks_BTHW)
        self._start = 0
        self._count_K: Tensor | None = None
        self._before: tuple[Tensor, Tensor] | None = None

    def of_next(self, logits_BTKHW: Tensor) -> Tensor:
        """Returns the loss of the next T frames, a scalar; takes the logits of all samples of the batch."""
        logits_BTKHW = logits_BTKHW[self._samples]
        if self._groups is not None:
            logits_BTKHW = self._groups.logits(logits_BTKHW)
        frames, total = logits_BTKHW.shape[1], self._masks_BTHW.shape[1]
        masks_BTHW = self._masks_BTHW[:, self._start : self._start + frames]
        self._start += frames
        part = None if frames == total else Part(frames, total, self._whole_count(logits_BTKHW.shape[2]))
        if isinstance(self._criterion, MatteLoss):  # compares frames; other losses take each by itself
            loss = self._criterion(logits_BTKHW, masks_BTHW, part, self._before)
            self._before = logits_BTKHW[:, -1:].detach(), masks_BTHW[:, -1:]
        else:
            loss = self._criterion(logits_BTKHW.flatten(0, 1), masks_BTHW.flatten(0, 1), part)
        weighted: Tensor = self._weight * loss
        return weighted

    def _whole_count(self, num_classes: int) -> Tensor:
        """Returns the pixels of each class in the windows of all processes; nothing for opacities."""
        if self._count_K is None:
            if isinstance(self._criterion, AlphaLoss | MatteLoss):
                self._count_K = torch.zeros(0)
            else:
                self._count_K = all_sum(count_classes(self._masks_BTHW, num_classes))
        return self._count_K
