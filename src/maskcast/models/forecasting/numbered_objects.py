"""A view of a store whose masks tell the objects of a class apart."""

import numpy as np
import torch
from torch import Tensor

from maskcast.data.clip_store.reader import ALL, Clip
from maskcast.data.clip_store.view import StoreView
from maskcast.models.objects.parts import max_objects, number_objects


class NumberedObjects(StoreView):
    """A store whose masks hold object numbers (``models.objects.parts``); number mod K is the class.

    Args:
        store: holds masks of K classes.
    """

    @property
    def num_classes(self) -> int:
        """The number of possible object numbers, background included."""
        return self.store.num_classes * max_objects(self.store.num_classes)

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the object numbers in a slice of the frames, (T, H, W) uint8."""
        return number_objects(self.store.masks(clip), self.store.num_classes)[frames]


def number_batch(ids_BTHW: Tensor, num_classes: int) -> Tensor:
    """Returns the object numbers (B, T, H, W) for masks of classes, uint8."""
    clips = [number_objects(ids_THW, num_classes) for ids_THW in ids_BTHW.cpu().numpy()]
    return torch.from_numpy(np.stack(clips)).to(ids_BTHW.device)
