"""Objects in generated masks, matched to the true objects of a clip.

Masks of a tracker have a map of instances, whose objects are used. A masker predicts classes only, so the
connected parts of its masks are tracked as objects.

Legend: T frames, H height, W width.
"""

import numpy as np

from maskcast.data.clip_store.instances import ObjectClasses
from maskcast.data.clip_store.reader import ALL, Clip, ClipStore
from maskcast.data.clip_store.view import StoreView
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, MirrorSwaps
from maskcast.models.objects.overlaps import match
from maskcast.models.objects.parts import number_objects


class PredictedObjects(StoreView):
    """A view of generated masks that holds ids of objects.

    An object gets the name of the true object that it overlaps most, from the start of the clip to the last frame
    that is read. So the truth tells which of two persons is `person 1`, but not where they are, and an object has
    the same name in the context of a forecast and after it. An object without overlap gets an unused name, or
    becomes background if none is left. In a clip without true objects, names are given in the order of appearance.

    Args:
        generated: store with masks of the objects' classes, or with a map of instances, which is preferred.
        prepared: store of the true objects.

    Raises:
        MaskcastError: if the masks have no map of the objects' classes.
    """

    def __init__(self, generated: ClipStore, prepared: ObjectClasses) -> None:
        true_map = prepared.store.label_map
        same_classes = [one for one in generated.maps.values() if one.classes == true_map.classes]
        usable = [one.name for kind in ("instances", "classes") for one in same_classes if one.kind == kind]
        if not usable:
            available = ", ".join(generated.maps)
            raise MaskcastError(
                f"{generated.root}: has maps {available}, but none of kind instances or classes with the "
                f"{true_map.num_classes} classes of {true_map.name!r}; train a masker on such a map, or use "
                f"{prepared.root} as masks to start from the true ones"
            )
        super().__init__(generated.of(usable[0]))
        self.prepared = prepared

    @property
    def label_map(self) -> LabelMap:
        """The map of the objects."""
        return self.prepared.label_map

    @property
    def mirror_swaps(self) -> MirrorSwaps:
        """The pairs that a horizontal flip swaps, as in the store of the true objects."""
        return self.prepared.mirror_swaps

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the ids of objects in a slice of the frames, (T, H, W) uint8."""
        clip = self._of_store(clip)
        start, stop, step = frames.indices(clip.num_frames)
        number_THW, class_of = self._numbered(clip, slice(stop))
        truth_THW = np.zeros_like(number_THW)
        if clip.id in self.prepared and self.prepared.has_masks(true := self.prepared.get(clip.id)):
            truth_THW = self.prepared.masks(true, slice(stop))
        name_of = np.zeros(len(class_of), np.uint8)
        matched = match(number_THW, truth_THW, lambda number, name: name in self._names(class_of[number]))
        name_of[list(matched)] = list(matched.values())
        for number in _by_appearance(number_THW):
            unused = [name for name in self._names(class_of[number]) if name not in name_of]
            if unused and not name_of[number]:
                name_of[number] = unused[0]
        return name_of[number_THW[start::step]]

    def _numbered(self, clip: Clip, first: slice) -> tuple[np.ndarray, np.ndarray]:
        """Returns object numbers (T, H, W) in the first frames, and the class of each number."""
        if self.store.label_map.kind == "instances":
            class_of = np.zeros(1 << 16, np.uint8)
            for number, class_id in clip.objects.get(self.store.label_map.name, {}).items():
                class_of[number] = class_id
            return self.store.masks(clip, first), class_of
        count = self.prepared.store.num_classes
        return number_objects(self.store.masks(clip, first), count), np.arange(256) % count

    def _names(self, class_id: int) -> range:
        """Returns the ids of the objects of a class."""
        first = self.prepared.first_of(class_id)
        return range(first, first + self.prepared.slots.get(class_id, 0))


def _by_appearance(number_THW: np.ndarray) -> list[int]:
    """Returns the object numbers by their first frames, those of the same frame in their order."""
    place = np.flatnonzero(number_THW)
    numbers, first = np.unique(number_THW.ravel()[place], return_index=True)
    frame = place[first] // np.prod(number_THW.shape[1:])
    return numbers[np.lexsort((numbers, frame))].tolist()
