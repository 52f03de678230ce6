"""Writes a copy of a clip store with new labels for some of its clips.

Legend: T frames, H height, W width.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES
from maskcast.data.clip_store.reader import ClipStore
from maskcast.data.clip_store.table import Clip
from maskcast.data.clip_store.writer import ClipWriter
from maskcast.data.compositing import BACKGROUNDS
from maskcast.data.left_out import LEFT_OUT
from maskcast.labels import LabelMap
from maskcast.writing import link


@dataclass(frozen=True)
class NewLabels:
    """Labels of one clip.

    Attributes:
        masks_THW: masks of the chosen map, with the dtype of its kind.
        frames: indices of the labelled frames, ascending.
        objects: for a map of kind instances, the class id of each instance id.
    """

    masks_THW: np.ndarray
    frames: Sequence[int]
    objects: Mapping[int, int] = field(default_factory=dict)


def write_relabelled(
    root: Path, store: ClipStore, labels: Mapping[str, NewLabels], splits: Mapping[str, str]
) -> None:
    """Writes a store with the same clips, some of which have new labels in the store's chosen map.

    Frames are not written again: both stores share their shards by hard links, where the file system allows it.

    Args:
        root: folder to write.
        store: source of everything else.
        labels: new labels by clip id.
        splits: split by clip id, of clips that change it.
    """
    label_map = store.label_map
    if BACKGROUNDS in store.meta:
        shutil.copytree(store.root / BACKGROUNDS, root / BACKGROUNDS, copy_function=link)
    if (store.root / LEFT_OUT).is_dir():
        shutil.copytree(store.root / LEFT_OUT, root / LEFT_OUT, copy_function=link)
    partly_labelled = set(store.meta.get(LABELLED_FRAMES, ()))
    if any(len(new.frames) < len(new.masks_THW) for new in labels.values()):
        partly_labelled.add(label_map.name)
    meta = store.meta | ({LABELLED_FRAMES: sorted(partly_labelled)} if partly_labelled else {})
    maps = tuple(store.maps.values())
    with ClipWriter(root, height=store.height, width=store.width, maps=maps, meta=meta) as writer:
        writer.skipped += store.skipped
        for clip in store.clips:
            layers = [store.of(name) for name in clip.maps]
            masks = {map_store.label_map.name: map_store.masks(clip) for map_store in layers}
            confidence = {
                map_store.label_map.name: map_store.confidence(clip)
                for map_store in layers
                if map_store.has_confidence(clip)
            }
            objects = dict(clip.objects)
            new = labels.get(clip.id)
            if new is not None:
                masks[label_map.name] = new.masks_THW
                confidence.pop(label_map.name, None)
                if label_map.kind == "instances":
                    objects[label_map.name] = dict(new.objects)
            writer.add(
                clip.id,
                split=splits.get(clip.id, clip.split),
                kind=clip.kind if new is None else "labelled",
                frames=store.stored_frames(clip) if clip.has_frames else None,
                masks=masks,
                confidence=confidence,
                objects=objects,
                meta=clip.meta if new is None else _meta(clip, label_map, new),
            )


def _meta(clip: Clip, label_map: LabelMap, new: NewLabels) -> dict[str, object]:
    frames = {name: list(known) for name, known in clip.meta.get(LABELLED_FRAMES, {}).items()}
    frames.pop(label_map.name, None)
    if len(new.frames) < len(new.masks_THW):
        frames[label_map.name] = list(new.frames)
    rest = {key: value for key, value in clip.meta.items() if key != LABELLED_FRAMES}
    return rest | ({LABELLED_FRAMES: frames} if frames else {})
