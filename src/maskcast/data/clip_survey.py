"""Statistics of prepared clips: what occurs in which split, frames that splits share, and distorted frames.

Legend: T frames, H height, W width.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from maskcast.data.clip_store.labelled_frames import LABELLED_FRAMES, partly_labelled
from maskcast.data.compositing import ALPHA
from maskcast.data.loading import frame_size
from maskcast.data.shared_frames import SharedFrames, frame_hashes
from maskcast.data.sources.base import Arrays, RawClip
from maskcast.dry_run_notes import is_dry_run
from maskcast.labels import IGNORE, LabelMap, Split
from maskcast.reading import first_few, pluralize

ASPECT_RATIO_LIMIT = 1.25  # ratio of two aspects from which on frames are distorted (16:9 to 3:2 is 1.19)
MAX_CLASSES = 5  # maximum number of classes in a warning
SCORED: tuple[Split, ...] = ("val", "test")


class ClipSurvey:
    """Statistics of the clips of a store, collected as they are written.

    Args:
        maps: label maps of the store.
        splits_come_from: what decides the split of a clip, for warnings.

    Attributes:
        written: number of clips of each split.
        masks_alone: number of clips without frames.
    """

    def __init__(self, maps: Sequence[LabelMap], splits_come_from: str) -> None:
        self.written: Counter[str] = Counter()
        self.masks_alone = 0
        self._maps = maps
        self._splits_come_from = splits_come_from
        self._num_classes = {each.name: each.num_classes for each in maps if each.kind == "classes"}
        # By split and map, the classes that occur but the background; {1} for foreground of maps of other kinds.
        self._foreground: dict[tuple[str, str], set[int]] = {}
        self._partly: set[str] = set()  # maps that some frames of labelled clips have no labels of
        self._aspects: list[float] = []  # least and greatest
        self._shared = SharedFrames()

    def add(self, clip: RawClip, arrays: Arrays, aspect: float) -> dict[str, Any]:
        """Adds a clip; returns the entries of its meta about unlabelled and distorted frames."""
        self.written[clip.split] += 1
        self.masks_alone += arrays.frames is None
        if arrays.frames is not None:
            video = clip.meta.get("video", clip.id)
            # Clips of one video have other backgrounds, but the same mattes.
            pixels = arrays.masks[ALPHA][..., None] if "background" in clip.meta else arrays.frames
            self._shared.add(clip.split, clip.id, video, frame_hashes(pixels))
        aspects = [*self._aspects, aspect]
        self._aspects = [min(aspects), max(aspects)]
        for name, mask in arrays.masks.items():
            self._add_mask(clip.split, name, mask)
        partly = partly_labelled(self._maps, arrays.masks) if clip.kind == "labelled" else {}
        self._partly |= partly.keys()
        meta: dict[str, Any] = {LABELLED_FRAMES: partly} if partly else {}
        if _is_distorted(aspect, *frame_size(arrays)):
            meta["source_aspect"] = round(aspect, 3)
        return meta

    def _add_mask(self, split: str, name: str, mask_THW: np.ndarray) -> None:
        seen = self._foreground.setdefault((split, name), set())
        if name not in self._num_classes:
            if not seen and (mask_THW != 0).any():
                seen.add(1)
        elif len(seen) < self._num_classes[name] - 1:
            for mask_HW in mask_THW.astype(np.uint8, copy=False):
                seen |= {*np.flatnonzero(np.bincount(mask_HW.ravel())).tolist()} - {0, IGNORE}

    def warnings(self) -> list[str]:
        """Returns warnings about masks without foreground and shared frames of the splits, one line each."""
        empty = [
            f"warning: no {name} of split {split!r} has foreground, so its scores are meaningless; check the "
            "files and the values in source"
            for (split, name), classes in self._foreground.items()
            if not classes
        ]
        return [*empty, *self._shared.warnings("frame")]

    def missing_classes(self) -> Iterator[str]:
        """Yields a line for classes of a map that are scored but not trained, and one for the opposite.

        In a dry run there are too few clips to say so.
        """
        if is_dry_run():
            return
        for each in self._maps:
            by_split = {split: self._foreground.get((split, each.name), set()) for split in ("train", *SCORED)}
            trained = by_split["train"]
            scored = {class_id for split in SCORED for class_id in by_split[split]}
            if each.kind != "classes" or not trained or not scored:
                continue
            where = " and ".join(split for split in SCORED if by_split[split])
            for missing, place, other, result in (
                (scored - trained, where, "train", "nothing is learned of"),
                (trained - scored, "train", where, "no score covers"),
            ):
                if missing:
                    names = first_few([each.classes[class_id] for class_id in sorted(missing)], MAX_CLASSES)
                    verb, pronoun = ("occurs", "it") if len(missing) == 1 else ("occur", "them")
                    yield (
                        f"warning: {pluralize(len(missing), 'class')} of {each.name} {verb} in {place} but not in "
                        f"{other} ({names}), so {result} {pronoun}; choose other clips for the "
                        f"splits in {self._splits_come_from}"
                    )

    def distortion(self, height: int, width: int) -> Iterator[str]:
        """Yields a warning if frames are stretched so much that a video of another aspect would be noticed.

        Args:
            height: height of the clips.
            width: width of the clips.
        """
        most = max((max(width / height / one, one * height / width) for one in self._aspects), default=1.0)
        if most > ASPECT_RATIO_LIMIT:
            low, high = (f"{one:.2f}" for one in self._aspects)
            aspects = low if low == high else f"{low} to {high}"
            yield (
                f"warning: frames have an aspect ratio (width / height) of {aspects}, clips {width / height:.2f}, "
                f"so they are stretched by up to {most:.1f}; set prepare_clips.height and width to the aspect of "
                "most frames, or prepare videos of other aspects as data sets of their own"
            )

    def meta(self, height: int, width: int) -> dict[str, Any]:
        """Returns the entries of the store's meta about partly labelled maps and distorted frames.

        Args:
            height: height of the clips.
            width: width of the clips.
        """
        meta: dict[str, Any] = {LABELLED_FRAMES: sorted(self._partly)} if self._partly else {}
        if any(_is_distorted(aspect, height, width) for aspect in self._aspects):
            meta["source_aspect"] = [round(aspect, 3) for aspect in self._aspects]
        return meta


def _is_distorted(aspect: float, height: int, width: int) -> bool:
    """Whether frames of a size have lost the aspect of their source, by more than rounding to a pixel."""
    return abs(aspect * height - width) > 1
