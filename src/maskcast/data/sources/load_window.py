"""Reads the windows of sequences, and their labels.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from pathlib import Path

import numpy as np

from maskcast.data.footage import Footage, ReadVideo
from maskcast.data.images import Size, resize_masks
from maskcast.data.labelling.formats.base import MAX_INSTANCE_ID, instance_ids
from maskcast.data.sources.base import Arrays
from maskcast.data.video_files.frames import read_resized_video
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, MASK, OBJECTS

NO_OBJECT = -1
# From the size of a frame and its file, for errors: class ids (H, W) uint8 and object numbers (H, W), from 0 or
# `NO_OBJECT`; both of that size, or scaled. An object has one class in all frames.
ReadLabels = Callable[[Size, Path], tuple[np.ndarray, np.ndarray]]


def load_window(
    footage: Footage,
    labels: Sequence[ReadLabels | None] | None,
    *,
    instances: bool = False,
    size: Size | None = None,
    read_video: ReadVideo = read_resized_video,
) -> Arrays:
    """Reads one window and its labels.

    Frames are resized to ``size``, if it is given; labels have the size that frames have in their files, to which
    those of another size and the same aspect ratio are resized.

    Args:
        footage: the frames.
        labels: for each frame what reads its labels, or None; None without labels.
        instances: whether object numbers are ids, too, if each frame has labels. If some are no ids of 16 bits,
            the objects are numbered 1, 2, ... in the window instead.
        size: (height, width) of the frames; None keeps their size.
        read_video: reads frames of a video.

    Raises:
        LabelError: on labels whose size differs from their frame's, or with a value that is no class.
        MaskcastError: on unreadable files, damaged masks, or images that differ in size.
    """
    frames, source_size = footage.read(size, read_video)
    if labels is None:
        return Arrays(frames, source_size=source_size)
    classes = np.full((len(frames), *source_size), IGNORE, np.uint8)
    objects = []
    mask_size: Size | None = None
    for t, read in enumerate(labels):
        if read is None:
            continue
        classes_HW, objects_HW = read(source_size, footage.file_of(t))
        if classes_HW.shape != source_size:
            mask_size = mask_size or classes_HW.shape
        classes[t] = resize_masks(classes_HW[None], *source_size)[0]
        if instances:
            objects.append(resize_masks(objects_HW[None], *source_size)[0])
    if not instances or None in labels:
        return Arrays(frames, {MASK: classes}, source_size=source_size, mask_size=mask_size)
    ids, class_of = _ids_of(objects, classes, footage.file_of(0))
    return Arrays(frames, {MASK: classes, OBJECTS: ids}, {OBJECTS: class_of}, source_size, mask_size)


def _ids_of(objects: Sequence[np.ndarray], classes: np.ndarray, first: Path) -> tuple[np.ndarray, dict[int, int]]:
    """Returns the ids (T, H, W) uint16 of the objects of T frames (H, W), 0 for none, and the class of each id.

    Raises:
        MaskcastError: there are more objects than ids; names the ``first`` frame.
    """
    numbers = reduce(np.union1d, objects, np.array([NO_OBJECT]))  # NO_OBJECT comes first
    if len(numbers) - 1 > MAX_INSTANCE_ID:
        raise MaskcastError(
            f"{first}: its clip has {len(numbers) - 1} objects, at most {MAX_INSTANCE_ID} are possible; make "
            "shorter clips, or check whether the masks hold objects"
        )
    known = [0, *instance_ids(numbers[1:].tolist())]
    ids, class_of = np.empty(classes.shape, np.uint16), np.zeros(len(known), np.uint8)
    for t, objects_HW in enumerate(objects):
        places_HW = np.searchsorted(numbers, objects_HW)
        class_of[places_HW] = classes[t]
        ids[t] = np.array(known, np.uint16)[places_HW]
    return ids, dict(zip(known[1:], class_of[1:].tolist(), strict=True))
