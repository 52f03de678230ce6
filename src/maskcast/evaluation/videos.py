"""Masks of clips as an evaluation of videos sees them: those of a segmenter, and of its base beside it.

Legend: T frames, H height, W width.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from maskcast.data.clips import Clip, ClipStore
from maskcast.errors import MaskcastError
from maskcast.evaluation.video_scores import VideoScores, beside

SEGMENTER, BASE = "segmenter", "base"


@dataclass(frozen=True)
class VideoEvaluation:
    """What is scored.

    Args:
        prepared: the clips with their true masks; its chosen label map is scored.
        masks: the masks of each model by its name, ``SEGMENTER`` first.
        chosen: labelled clips of ``prepared``.

    Raises:
        MaskcastError: a store of masks lacks a clip, or has frames of another number or size.
    """

    prepared: ClipStore
    masks: Mapping[str, ClipStore]
    chosen: Sequence[Clip]

    def __post_init__(self) -> None:
        remedy = f"run generate_masks on {self.prepared.root}"
        for store in self.masks.values():
            for clip in self.chosen:
                if clip.id not in store or not store.has_masks(store.get(clip.id)):
                    raise MaskcastError(f"{store.root}: has no masks of clip {clip.id!r}; {remedy}")
                shapes = [each.masks(each.get(clip.id)).shape for each in (self.prepared, store)]
                if shapes[0] != shapes[1]:
                    raise MaskcastError(
                        f"{store.root}: masks of clip {clip.id!r} have shape {shapes[1]}, its true masks "
                        f"{shapes[0]}; {remedy}"
                    )

    @cached_property
    def scores(self) -> dict[str, VideoScores]:
        """The scores of each model."""
        found = {}
        for name, store in self.masks.items():
            found[name] = VideoScores(self.prepared.num_classes)
            for clip in self.chosen:
                found[name].add(clip.id, self.prepared.masks(clip), store.masks(store.get(clip.id)))
        return found

    def flat(self) -> dict[str, float]:
        """Returns all scores as flat finite numbers; those of the base carry its name."""
        flat = {"clips": float(len(self.chosen)), "frames": float(sum(clip.num_frames for clip in self.chosen))}
        tables = {name: one.table() for name, one in self.scores.items()}
        for name, table in tables.items():
            suffix = "" if name == SEGMENTER else f"_{name}"
            flat |= {f"{score}{suffix}": value for score, value in table.items()}
        if BASE in tables:
            flat |= beside(tables[SEGMENTER], tables[BASE])
        return {name: value for name, value in flat.items() if np.isfinite(value)}

    def data_digest(self) -> str:
        """Returns 32 hex digits that name what is scored: classes, ids, true masks and frames."""
        total = hashlib.sha256(repr((self.prepared.label_map.name, self.prepared.classes)).encode())
        for clip in self.chosen:
            total.update(f"\0{clip.id}\0".encode())
            total.update(self.prepared.masks(clip).tobytes())
            total.update(self.prepared.frames(clip).tobytes())
        return total.hexdigest()[:32]
