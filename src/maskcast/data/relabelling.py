"""A clip store with new labels of some of its clips, and which frames of its clips have labels.

A clip may be labelled in some frames only: the masks of the others are `IGNORE`. Then its ``meta`` says under
`LABELLED_FRAMES` which frames have labels, by map, and the store's ``meta`` holds the names of such maps, so that
training need not look for them.

Legend: T frames, H height, W width.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from maskcast.data.clip_index import FrameIndex
from maskcast.data.clip_table import Clip
from maskcast.data.clip_writer import ClipWriter
from maskcast.data.clips import ClipStore
from maskcast.data.composing import BACKGROUNDS
from maskcast.labels import IGNORE, LabelMap

LABELLED_FRAMES = "labelled_frames"


@dataclass(frozen=True)
class NewLabels:
    """Labels of one clip.

    Attributes:
        masks_THW: of the chosen map, of the dtype of its kind.
        frames: those that have labels, in order.
        objects: of a map of instances the class id of every instance id.
    """

    masks_THW: np.ndarray
    frames: Sequence[int]
    objects: Mapping[int, int] = field(default_factory=dict)


def write_relabelled(root: Path, store: ClipStore, labels: Mapping[str, NewLabels], split: str) -> None:
    """Writes a store with the same clips, of which some have new labels in the store's chosen map.

    Args:
        root: the folder to write.
        store: where everything else comes from.
        labels: by clip id.
        split: of clips that had no labels before; the others keep theirs.
    """
    label_map = store.label_map
    if BACKGROUNDS in store.meta:
        shutil.copytree(store.root / BACKGROUNDS, root / BACKGROUNDS)
    partly = set(store.meta.get(LABELLED_FRAMES, ()))
    if any(len(new.frames) < len(new.masks_THW) for new in labels.values()):
        partly.add(label_map.name)
    meta = store.meta | ({LABELLED_FRAMES: sorted(partly)} if partly else {})
    maps = tuple(store.maps.values())
    with ClipWriter(root, height=store.height, width=store.width, maps=maps, meta=meta) as writer:
        for clip in store.clips:
            layers = [store.of(name) for name in clip.maps]
            masks = {each.label_map.name: each.masks(clip) for each in layers}
            sure = {each.label_map.name: each.confidence(clip) for each in layers if each.has_confidence(clip)}
            objects = dict(clip.objects)
            new = labels.get(clip.id)
            if new is not None:
                masks[label_map.name] = new.masks_THW
                sure.pop(label_map.name, None)
                if label_map.kind == "instances":
                    objects[label_map.name] = dict(new.objects)
            writer.add(
                clip.id,
                split=clip.split if new is None or clip.kind == "labelled" else split,
                kind=clip.kind if new is None else "labelled",
                frames=store.frames(clip) if clip.has_frames else None,
                masks=masks,
                confidence=sure,
                objects=objects,
                meta=clip.meta if new is None else _meta(clip, label_map, new),
            )


def partly_labelled(maps: Sequence[LabelMap], masks: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Returns by map of kind ``classes`` which frames have labels, where not all of them have.

    Args:
        maps: all that there are.
        masks: (T, H, W) of some.
    """
    found: dict[str, list[int]] = {}
    for one in maps:
        if one.kind == "classes" and one.name in masks:
            known_T = (masks[one.name] != IGNORE).any(axis=(1, 2))
            if not known_T.all():
                found[one.name] = np.flatnonzero(known_T).tolist()
    return found


def labelled_frames(store: ClipStore, clip: Clip) -> Sequence[int]:
    """Returns the frames of a clip that have labels in the store's chosen map."""
    if clip.kind != "labelled" or not store.has_masks(clip):
        return ()
    known: Mapping[str, Sequence[int]] = clip.meta.get(LABELLED_FRAMES, {})
    return known.get(store.label_map.name, range(clip.num_frames))


class TrainingIndex:
    """Numbers the windows of clips that have labels to learn from.

    Args:
        store: holds the clips.
        clips: in this order.
        maps: a window needs a frame with labels in one of them.
        length: frames of a window.
        reach: frames, before and after one with labels, that count as if they had some.
    """

    def __init__(
        self, store: ClipStore, clips: Sequence[Clip], maps: Sequence[LabelMap], length: int, reach: int = 0
    ) -> None:
        self._windows = FrameIndex(clips, length)
        self._kept: np.ndarray | None = None
        if not {one.name for one in maps} <= set(store.meta.get(LABELLED_FRAMES, ())):
            return  # a map has labels in every frame
        kept = np.zeros(len(self._windows), bool)
        for k, clip in enumerate(clips):
            windows = kept[self._windows.start(k) : self._windows.start(k + 1)]
            for one in maps:
                for t in labelled_frames(store.of(one.name), clip):
                    windows[max(0, t - reach - length + 1) : t + reach + 1] = True
        self._kept = np.flatnonzero(kept)

    def __len__(self) -> int:
        return len(self._windows if self._kept is None else self._kept)

    def at(self, window: int) -> tuple[int, int]:
        """Returns the number of the clip that holds a window, and the place of its first frame."""
        return self._windows.at(window if self._kept is None else int(self._kept[window]))


def _meta(clip: Clip, label_map: LabelMap, new: NewLabels) -> dict[str, object]:
    frames = {name: list(known) for name, known in clip.meta.get(LABELLED_FRAMES, {}).items()}
    frames.pop(label_map.name, None)
    if len(new.frames) < len(new.masks_THW):
        frames[label_map.name] = list(new.frames)
    rest = {key: value for key, value in clip.meta.items() if key != LABELLED_FRAMES}
    return rest | ({LABELLED_FRAMES: frames} if frames else {})
