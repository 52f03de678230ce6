"""Writes a store of masks that are propagated from labelled frames to the frames around, for people to correct."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.labelling.propagation import propagate
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.progress import track


class Carried(NamedTuple):
    """Numbers of a propagation."""

    clips: int
    labelled: int
    """Number of frames that had labels."""
    carried: int
    """Number of frames that got propagated labels."""


def write_propagated(root: Path, store: ClipStore, reach: int) -> Carried:
    """Writes propagated masks of all partly labelled clips, with a confidence for each pixel.

    Frames and pixels that no label reaches stay without label.

    Args:
        root: folder to write.
        store: has the frames, and the labels in its chosen map.
        reach: how many frames before and after a labelled frame its labels are propagated.

    Raises:
        MaskcastError: if the map is not of kind ``classes``, or no clip is partly labelled.
    """
    label_map = store.label_map
    if label_map.kind != "classes":
        raise MaskcastError(
            f"{store.root}: map {label_map.name!r} is of kind {label_map.kind}, and only classes can be carried; "
            "name another with --map"
        )
    found = store.where(lambda group: group.kind == "labelled" and group.has_frames)
    clips = [clip for clip in found if 0 < len(labelled_frames(store, clip)) < clip.num_frames]
    if not clips:
        raise MaskcastError(
            f"{store.root}: no clip has labels of map {label_map.name!r} in some of its frames alone, so there is "
            "nothing to carry; give clips that are labelled in some frames"
        )
    labelled = carried = 0
    meta = store.meta | {LABELLED_FRAMES: [label_map.name]}
    with ClipWriter(root, height=store.height, width=store.width, maps=(label_map,), meta=meta) as writer:
        for clip in track(clips, "carrying labels"):
            known = labelled_frames(store, clip)
            masks_THW, sure_THW = propagate(store.frames(clip), store.masks(clip), known, reach)
            told = np.flatnonzero((masks_THW != IGNORE).any((1, 2))).tolist()
            labelled, carried = labelled + len(known), carried + len(set(told) - set(known))
            writer.add(
                clip.id,
                split=clip.split,
                kind="labelled",
                masks={label_map.name: masks_THW},
                confidence={label_map.name: np.rint(255 * sure_THW).astype(np.uint8)},
                meta=clip.meta | {LABELLED_FRAMES: {label_map.name: told}},
            )
    return Carried(len(clips), labelled, carried)
