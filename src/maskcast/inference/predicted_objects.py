"""Objects in generated masks, matched to the true objects of a clip.

Masks of a tracker have a map of instances, whose objects are used. A masker predicts classes only, so the
connected parts of its masks are tracked as objects.

Legend: T frames, H height, W width, E pairs of an object and a true object that share pixels in a frame.
"""

from collections.abc import Sequence

import numpy as np

from maskcast.data.clip_store.instances import ObjectClasses
from maskcast.data.clip_store.reader import ALL, Clip, ClipStore
from maskcast.data.clip_store.view import StoreView
from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap, MirrorSwaps
from maskcast.models.objects.overlaps import count_overlaps, match, rank_overlaps
from maskcast.models.objects.parts import number_objects

MAX_COUNTED = 1024  # clips whose overlaps are kept, about 20 bytes per object and frame


class PredictedObjects(StoreView):
    """A view of generated masks that holds ids of objects.

    An object gets the name of the true object that it overlaps most, from the start of the clip to the last frame
    that is read. So the truth tells which of two persons is `person 1`, but not where they are, and names in a
    context know nothing of the frames after it. If these are read, too, an object that then covers another true
    object more has that one's name. An object without overlap gets an unused name, or becomes background if none
    is left. In a clip without true objects, names are given in the order of appearance.

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
        # By clip, for its first frames, as far as they were read.
        self._counted: dict[str, Sequence[np.ndarray]] = {}

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
        if self.store.label_map.kind == "instances":
            class_of = np.zeros(1 << 16, np.uint8)
            for number, class_id in clip.objects.get(self.store.label_map.name, {}).items():
                class_of[number] = class_id
            counts = self._counts_of_instances(clip, stop)
            return self._names_of(counts, class_of)[self.store.masks(clip, frames)]
        count = self.prepared.store.num_classes
        number_THW = number_objects(self.store.masks(clip, slice(stop)), count)
        counts = self._count(clip, number_THW, slice(stop))
        return self._names_of(counts, np.arange(256) % count)[number_THW[start::step]]

    def _counts_of_instances(self, clip: Clip, stop: int) -> Sequence[np.ndarray]:
        """Returns the overlaps (E, 3) in each of the first frames; each frame is counted once."""
        counts = self._counted.get(clip.id, ())
        if len(counts) < stop:
            new = slice(len(counts), stop)
            counts = (*counts, *self._count(clip, self.store.masks(clip, new), new))
            if len(self._counted) >= MAX_COUNTED:
                self._counted = {}
            self._counted[clip.id] = counts  # set at once: other threads read it
        return counts[:stop]

    def _count(self, clip: Clip, number_THW: np.ndarray, frames: slice) -> list[np.ndarray]:
        """Returns the overlaps (E, 3) in each of the frames with the true objects (``count_overlaps``)."""
        truth_THW = np.zeros_like(number_THW)
        if clip.id in self.prepared and self.prepared.has_masks(true := self.prepared.get(clip.id)):
            truth_THW = self.prepared.masks(true, frames)
        return [count_overlaps(*both_HW).astype(np.uint32) for both_HW in zip(number_THW, truth_THW, strict=True)]

    def _names_of(self, counts: Sequence[np.ndarray], class_of: np.ndarray) -> np.ndarray:
        """Returns the id of each object number, from the overlaps until now and the numbers' classes."""
        counts_E3 = np.concatenate([np.zeros((0, 3), np.int64), *counts])
        name_of = np.zeros(len(class_of), np.uint8)
        matched = match(rank_overlaps(counts_E3), lambda number, name: name in self._names(class_of[number]))
        name_of[list(matched)] = list(matched.values())
        numbers, first = np.unique(counts_E3[:, 0], return_index=True)
        frame = np.repeat(np.arange(len(counts)), [len(one) for one in counts])[first]
        for number in numbers[np.lexsort((numbers, frame))].tolist():  # in the order of appearance
            unused = [name for name in self._names(class_of[number]) if name not in name_of]
            if unused and not name_of[number]:
                name_of[number] = unused[0]
        return name_of

    def _names(self, class_id: int) -> range:
        """Returns the ids of the objects of a class."""
        first = self.prepared.first_of(class_id)
        return range(first, first + self.prepared.slots.get(class_id, 0))
