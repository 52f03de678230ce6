"""Writes a store of masks that are propagated from labelled frames to the frames around, for people to correct."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, labelled_frames
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.compositing import BACKGROUNDS
from maskcast.data.labelling.propagation import propagate
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE, MIRROR_SWAPS, mirror_swaps_to_json
from maskcast.progress import track


class PropagationCounts(NamedTuple):
    """Numbers of a propagation."""

    clips: int
    labelled: int
    """Number of frames that had labels."""
    propagated: int
    """Number of frames that got propagated labels."""


def write_propagated(root: Path, store: ClipStore, reach: int) -> PropagationCounts:
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
            f"{store.root}: map {label_map.name!r} is of kind {label_map.kind}, but only classes are supported; "
            "choose another with --map"
        )
    candidates = store.where(lambda group: group.kind == "labelled" and group.has_frames)
    clips = [clip for clip in candidates if 0 < len(labelled_frames(store, clip)) < clip.num_frames]
    if not clips:
        raise MaskcastError(
            f"{store.root}: no clip has labels of map {label_map.name!r} in some but not all of its frames; "
            "use a store with partly labelled clips"
        )
    labelled = propagated = 0
    meta = {key: value for key, value in store.meta.items() if key != BACKGROUNDS}
    meta |= {LABELLED_FRAMES: [label_map.name]}
    if MIRROR_SWAPS in meta:
        classes = {*label_map.classes}  # the pairs may also be of maps that are left out
        meta[MIRROR_SWAPS] = mirror_swaps_to_json(tuple(pair for pair in store.mirror_swaps if {*pair} <= classes))
    with ClipWriter(root, height=store.height, width=store.width, maps=(label_map,), meta=meta) as writer:
        for clip in track(clips, "propagating labels"):
            known = labelled_frames(store, clip)
            masks_THW, confidence_THW = propagate(store.frames(clip), store.masks(clip), known, reach)
            frames = np.flatnonzero((masks_THW != IGNORE).any((1, 2))).tolist()
            labelled, propagated = labelled + len(known), propagated + len(set(frames) - set(known))
            writer.add(
                clip.id,
                split=clip.split,
                kind="labelled",
                masks={label_map.name: masks_THW},
                confidence={label_map.name: np.rint(255 * confidence_THW).astype(np.uint8)},
                meta=clip.meta | {LABELLED_FRAMES: {label_map.name: frames}},
            )
    return PropagationCounts(len(clips), labelled, propagated)
