"""Scores of generated masks against true ones, in every label map that both stores have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maskcast.data.clip_store.reader import Clip, ClipStore
from maskcast.data.clip_store.table import masks_layer
from maskcast.evaluation.map_scores import counts_of, map_scores, zero_counts
from maskcast.evaluation.metrics import has_foreground, macro_jaccard
from maskcast.labels import LabelMap


@dataclass(frozen=True)
class MaskerScores:
    """Scores of one label map over all frames of some clips.

    Args:
        label_map: the map.
        clips: number of clips that were scored.
        counts: see `map_scores`.
    """

    label_map: LabelMap
    clips: tuple[str, ...]
    counts: np.ndarray

    def table(self) -> dict[str, float]:
        """Returns `jaccard`, `accuracy` and, for classes, `jaccard_no_background`; see `map_scores`."""
        scores = map_scores(self.label_map, self.counts)
        if self.label_map.kind == "alpha":
            return scores
        foreground = has_foreground(self.counts)
        no_background = macro_jaccard(self.counts, absent="omit", background=False) if foreground else math.nan
        return {
            "jaccard": scores["jaccard"],
            "jaccard_no_background": no_background,
            "accuracy": scores["accuracy"],
        }


def score_masker(
    prepared: ClipStore, generated: ClipStore, clips_to_score: Sequence[Clip]
) -> dict[str, MaskerScores]:
    """Returns the scores of every map by name, the chosen map of `prepared` first; maps without masks are skipped.

    Args:
        prepared: holds the true masks.
        generated: holds the masks to score.
        clips_to_score: the clips to score in the chosen map; in other maps, all labelled clips of their splits.
    """
    chosen_map, splits = prepared.label_map.name, {clip.split for clip in clips_to_score}
    shared = [name for name, each in prepared.maps.items() if name in generated.maps and each.kind != "instances"]
    scores = {}
    for name in sorted(shared, key=lambda name: name != chosen_map):
        truth, predictions = prepared.of(name), generated.of(name)
        clips = clips_to_score if name == chosen_map else _labelled(truth, splits)
        masked = [
            clip for clip in clips if clip.id in predictions and predictions.has_masks(predictions.get(clip.id))
        ]
        if not masked:
            continue
        counts = zero_counts(truth.label_map)
        for clip in masked:
            counts += counts_of(truth.label_map, truth.masks(clip), predictions.masks(predictions.get(clip.id)))
        scores[name] = MaskerScores(truth.label_map, tuple(clip.id for clip in masked), counts)
    return scores


def _labelled(store: ClipStore, splits: set[str]) -> Sequence[Clip]:
    """Returns the clips of some splits that the store's chosen map labels."""
    layer = masks_layer(store.label_map.name)
    return store.where(lambda group: group.split in splits and layer in group.layers)
