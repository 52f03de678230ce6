"""The evaluation of a segmenter's masks of clips, and of those of its base for comparison.

Several label maps are scored as one video, whose frames are stacked vertically.

Legend: T frames, H height, W width.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.errors import MaskcastError
from maskcast.evaluation.amodal import AmodalScores
from maskcast.evaluation.video_scores import VideoScores, compare_with_base
from maskcast.labels import IGNORE

SEGMENTER, BASE = "segmenter", "base"


class AmodalSetting(NamedTuple):
    """Amodal label maps, of whole objects that may occlude each other, scored in addition."""

    maps: Sequence[str]
    visible: str | None
    """The map of kind ``classes`` that says what is visible: its classes have the names of ``maps``."""
    least_pixels: int


@dataclass(frozen=True)
class VideoEvaluation:
    """Data and scores of an evaluation.

    Args:
        prepared: store of clips with true masks; its chosen label map is scored.
        masks: store of masks by name of the model, ``SEGMENTER`` first.
        chosen: labelled clips of ``prepared``.
        amodal: several maps to score, including the chosen one.
        notes: sentences on scores that are too high (`evaluation.notes`).

    Raises:
        MaskcastError: a store of masks lacks a clip or a map, or its frames differ in number or size; the maps of
            ``amodal`` have other classes than the chosen one, or its map of visible objects does not name them.
    """

    prepared: ClipStore
    masks: Mapping[str, ClipStore]
    chosen: Sequence[Clip]
    amodal: AmodalSetting | None = None
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._check_maps()
        for store, name in ((store.of(name), name) for store in self.masks.values() for name in self.maps):
            for clip in self.chosen:
                if clip.id not in store or not store.has_masks(store.get(clip.id)):
                    raise MaskcastError(
                        f"{store.root}: has no masks of clip {clip.id!r}; "
                        f"{self.prepared.remedy_without_masks(clip)}"
                    )
                shapes = [each.masks(each.get(clip.id)).shape for each in (self.prepared.of(name), store)]
                if shapes[0] != shapes[1]:
                    raise MaskcastError(
                        f"{store.root}: masks of clip {clip.id!r} have shape {shapes[1]}, its true masks "
                        f"{shapes[0]}; run generate_masks on {self.prepared.root}"
                    )

    @property
    def maps(self) -> Sequence[str]:
        """Names of the maps that are scored."""
        return [self.prepared.label_map.name] if self.amodal is None else self.amodal.maps

    @property
    def videos(self) -> dict[str, str]:
        """The video of each clip, by clip id."""
        return {clip.id: clip.video for clip in self.chosen}

    @property
    def single_frames(self) -> bool:
        """Whether every clip is a single frame, so that there are no scores over time."""
        return all(clip.num_frames == 1 for clip in self.chosen)

    def layers(self, store: ClipStore, clip: Clip) -> dict[str, np.ndarray]:
        """Returns the masks (T, H, W) of a clip in each scored map, from a store of true or predicted masks."""
        return {name: store.of(name).masks(store.get(clip.id)) for name in self.maps}

    def stacked_masks(self, store: ClipStore, clip: Clip) -> np.ndarray:
        """Returns the masks of all maps stacked vertically, (T, maps x H, W)."""
        return np.concatenate(list(self.layers(store, clip).values()), 1)

    @cached_property
    def scores(self) -> dict[str, VideoScores]:
        """The scores of each model."""
        scores = {}
        for name, store in self.masks.items():
            scores[name] = VideoScores(self.prepared.num_classes, len(self.maps))
            for clip in self.chosen:
                scores[name].add(clip.id, *(self.stacked_masks(each, clip) for each in (self.prepared, store)))
        return scores

    @cached_property
    def amodal_scores(self) -> dict[str, AmodalScores]:
        """The amodal scores of each model; empty without ``amodal``."""
        scores: dict[str, AmodalScores] = {}
        if self.amodal is None:
            return scores
        maps = [self.prepared.of(name).label_map for name in self.maps]
        for name, store in self.masks.items():
            scores[name] = AmodalScores(maps, self.amodal.least_pixels)
            for clip in self.chosen:
                truth, masks = (self.layers(each, clip) for each in (self.prepared, store))
                scores[name].add(clip.id, truth, masks, self._visible_masks(clip), clip.meta.get("hands"))
        return scores

    @property
    def tables(self) -> dict[str, dict[str, float]]:
        """All scores of each model by name; NaN if undefined."""
        tables = {name: video_scores.table() for name, video_scores in self.scores.items()}
        for name, amodal in self.amodal_scores.items():
            tables[name] |= amodal.table()
        return tables

    def per_clip(self, name: str) -> dict[str, dict[str, float]]:
        """Returns all scores of each clip for a model."""
        per_clip = self.scores[name].per_clip
        if name not in self.amodal_scores:
            return per_clip
        return {clip: scores | self.amodal_scores[name].per_clip[clip] for clip, scores in per_clip.items()}

    def flat(self) -> dict[str, float]:
        """Returns all finite scores in one dict; those of the base have its name added."""
        flat = {"clips": float(len(self.chosen)), "frames": float(sum(clip.num_frames for clip in self.chosen))}
        tables = self.tables
        for name, table in tables.items():
            suffix = "" if name == SEGMENTER else f"_{name}"
            flat |= {f"{score}{suffix}": value for score, value in table.items()}
        if BASE in tables:
            flat |= compare_with_base(tables[SEGMENTER], tables[BASE])
            for score in ("miou", "miou_occluded"):
                if score in tables[BASE]:
                    flat[f"{score}_gain"] = tables[SEGMENTER][score] - tables[BASE][score]
        return {name: value for name, value in flat.items() if np.isfinite(value)}

    def exact_frames(self) -> int:
        """Returns how many masks with foreground equal the truth in every labelled pixel."""
        stores, count = (self.prepared, self.masks[SEGMENTER]), 0
        for clip in self.chosen:
            truth_THW, masks_THW = (self.stacked_masks(each, clip) for each in stores)
            unknown_THW = truth_THW == IGNORE
            equal_T = ((truth_THW == masks_THW) | unknown_THW).all((1, 2))
            count += int((equal_T & ((truth_THW > 0) & ~unknown_THW).any((1, 2))).sum())
        return count

    def data_digest(self) -> str:
        """Returns a digest (32 hex digits) of what is scored: classes, ids, true masks, visibility and frames."""
        settings = [self.prepared.label_map.name] if self.amodal is None else list(self.amodal)
        digest = hashlib.sha256(repr((*settings, self.prepared.classes)).encode())
        for clip in self.chosen:
            digest.update(f"\0{clip.id}\0".encode())
            digest.update(self.stacked_masks(self.prepared, clip).tobytes())
            for name, visible_THW in (self._visible_masks(clip) or {}).items():
                digest.update(f"\0{name}\0".encode() + visible_THW.tobytes())
            digest.update(self.prepared.frames(clip).data)
        return digest.hexdigest()[:32]

    def _visible_masks(self, clip: Clip) -> dict[str, np.ndarray] | None:
        """Returns where the object of each map is visible, (T, H, W) bool; all of it if that is unknown."""
        if self.amodal is None or self.amodal.visible is None:
            return None
        visible = self.prepared.of(self.amodal.visible)
        visible_THW = visible.masks(clip)
        unknown_THW = visible_THW == IGNORE
        return {name: unknown_THW | (visible_THW == visible.classes.index(name)) for name in self.maps}

    def _check_maps(self) -> None:
        if self.amodal is None:
            return
        for store, name in (
            (store, name) for store in (self.prepared, *self.masks.values()) for name in self.maps
        ):
            if store.of(name).label_map.classes != self.prepared.classes:
                raise MaskcastError(
                    f"{store.root}: map {name!r} has other classes than {self.prepared.label_map.name!r} of "
                    f"{self.prepared.root}; name maps of the same classes (evaluate_video.amodal.maps)"
                )
        visible = self.amodal.visible
        if visible is not None and (missing := set(self.maps) - set(self.prepared.of(visible).classes)):
            raise MaskcastError(
                f"{self.prepared.root}: map {visible!r} has no class {sorted(missing)[0]!r}, so it does not say "
                "where its object is visible; set evaluate_video.amodal.visible to null"
            )
