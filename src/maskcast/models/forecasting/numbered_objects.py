"""A view of a store whose masks tell the objects of a class apart."""

import numpy as np
import torch
from torch import Tensor

from maskcast.data.clip_store.reader import ALL, Clip, ClipStore
from maskcast.data.clip_store.view import StoreView
from maskcast.labels import IGNORE
from maskcast.models.objects.overlaps import match, overlaps
from maskcast.models.objects.parts import max_objects, number_objects


class NumberedObjects(StoreView):
    """A store whose masks hold object numbers (``models.objects.parts``), or 255; number mod K is the class.

    Args:
        store: holds masks of K classes.
        context: holds other masks of the same clips. An object gets the number of the one in these masks that it
            overlaps most in the clip, and is left out if it overlaps none. Through frames without labels, objects
            are followed by these masks.
    """

    def __init__(self, store: ClipStore, context: ClipStore | None = None) -> None:
        super().__init__(store)
        self.context = context

    @property
    def num_classes(self) -> int:
        """The number of possible object numbers, background included."""
        return self.store.num_classes * max_objects(self.store.num_classes)

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the object numbers in a slice of the frames, (T, H, W) uint8."""
        ids_THW, count = self.store.masks(clip), self.store.num_classes
        unknown_THW = ids_THW == IGNORE
        if self.context is None:
            number_THW = number_objects(ids_THW, count)
        else:
            context_THW = self.context.masks(self.context.get(clip.id))
            unlabelled_T11 = unknown_THW.all((1, 2), keepdims=True)
            number_THW = number_objects(np.where(unlabelled_T11, context_THW, ids_THW), count)
            name_THW = number_objects(context_THW, count)
            names = match(overlaps(number_THW, name_THW), lambda number, name: number % count == name % count)
            name_of = np.zeros(256, np.uint8)
            name_of[list(names)] = list(names.values())
            number_THW = name_of[number_THW]
        return np.where(unknown_THW, np.uint8(IGNORE), number_THW)[frames]


def number_batch(ids_BTHW: Tensor, num_classes: int) -> Tensor:
    """Returns the object numbers (B, T, H, W) for masks of classes, uint8."""
    clips = [number_objects(ids_THW, num_classes) for ids_THW in ids_BTHW.cpu().numpy()]
    return torch.from_numpy(np.stack(clips)).to(ids_BTHW.device)
