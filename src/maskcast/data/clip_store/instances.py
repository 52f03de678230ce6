"""Shows a map of instances as a map of classes, in which each object has a class: `person 1`, `person 2`.

So all code that forecasts or scores classes can handle objects, too.
"""

from collections import Counter

import numpy as np

from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, labelled_frames
from maskcast.data.clip_store.reader import ALL, Clip, ClipStore
from maskcast.data.clip_store.view import StoreView
from maskcast.labels import IGNORE, LabelError, LabelMap, MirrorSwaps
from maskcast.reading import pluralize


class ObjectClasses(StoreView):
    """A view of a store whose chosen map of instances reads as a map of classes.

    In each clip the objects of a class are numbered from 1 in the order of their ids. Instance ids have no value
    for "no label". So unlabelled frames become `IGNORE`, and so do pixels that are `IGNORE` in a map with the same
    classes, if the store has one.

    Args:
        store: its chosen map is of kind instances.

    Raises:
        LabelError: if its clips have more objects than a map can have classes.
    """

    def __init__(self, store: ClipStore) -> None:
        super().__init__(store)
        label_map, max_counts = store.label_map, Counter[int]()
        for clip in store.clips:
            for class_id, count in Counter(clip.objects.get(label_map.name, {}).values()).items():
                max_counts[class_id] = max(max_counts[class_id], count)
        for pair in store.mirror_swaps:  # an object of one side gets a partner of the other side
            if {*pair} <= {*label_map.classes}:
                both = [label_map.classes.index(name) for name in pair]
                max_counts |= dict.fromkeys(both, max(max_counts[k] for k in both))
        self.slots = {class_id: max_counts[class_id] for class_id in sorted(max_counts)}
        """How many objects a clip has at most, by class."""
        if sum(self.slots.values()) >= IGNORE:
            raise LabelError(
                f"{store.root}: clips of map {label_map.name!r} have up to "
                f"{pluralize(sum(self.slots.values()), 'object')}; "
                f"at most {IGNORE - 1} are supported: cut shorter clips, or leave out objects"
            )
        names = [f"{label_map.classes[k]} {n}" for k, count in self.slots.items() for n in range(1, count + 1)]
        self._map = LabelMap(label_map.name, (label_map.classes[0], *names), things=True)
        class_maps = (one for one in store.maps.values() if one.kind == "classes")
        same = (store.of(one.name) for one in class_maps if one.classes == label_map.classes)
        self._class_store = next(same, None)

    @property
    def label_map(self) -> LabelMap:
        """The map, with one class per object."""
        return self._map

    @property
    def mirror_swaps(self) -> MirrorSwaps:
        """The pairs of objects with the same number whose classes a horizontal flip swaps, and pairs of maps."""
        swaps, numbers = self.store.mirror_swaps, range(1, 1 + max(self.slots.values(), default=0))
        objects = ((f"{one} {n}", f"{other} {n}") for one, other in swaps for n in numbers)
        return (*swaps, *(pair for pair in objects if {*pair} <= {*self._map.classes}))

    def first_of(self, class_id: int) -> int:
        """Returns the class id of the first object of a class."""
        return 1 + sum(count for other, count in self.slots.items() if other < class_id)

    def masks(self, clip: Clip, frames: slice = ALL) -> np.ndarray:
        """Returns the class ids of the objects in a slice of the frames, (T, H, W) uint8; 255 means no label."""
        clip = self._of_store(clip)
        ids_THW, table, seen = self.store.masks(clip, frames), np.zeros(1 << 16, np.uint8), Counter[int]()
        for instance, class_id in sorted(clip.objects.get(self._map.name, {}).items()):
            table[instance] = self.first_of(class_id) + seen[class_id]
            seen[class_id] += 1
        found_THW: np.ndarray = table[ids_THW]
        if LABELLED_FRAMES in clip.meta:
            known = {*labelled_frames(self.store, clip)}
            found_THW[[t not in known for t in range(clip.num_frames)[frames]]] = IGNORE
        if self._class_store is not None and self._class_store.has_masks(clip):
            unknown_THW = self._class_store.masks(clip, frames) == IGNORE
            found_THW[unknown_THW & ~unknown_THW.all((1, 2), keepdims=True)] = IGNORE
        return found_THW
