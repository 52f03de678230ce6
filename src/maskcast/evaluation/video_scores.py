"""Accuracy and temporal stability of class masks of clips.

Scores that compare consecutive frames do so only within a clip.

Legend: T frames, H height, W width.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from maskcast.evaluation.boundary import j_and_f, region_and_boundary
from maskcast.evaluation.metrics import (
    accuracy_per_class,
    as_one_class,
    confusion,
    has_foreground,
    macro_dice,
    macro_jaccard,
    mean_where_labelled,
    scores_of_counts,
)
from maskcast.evaluation.video import Flicker, consistency, flicker

WINDOWS = (8, 16)  # frames of mVC


@dataclass
class VideoScores:
    """Scores of one masker over clips; for meanings see `definitions`.

    Args:
        num_classes: of the label map, background included.
        maps: number of label maps that are stacked vertically in each frame.
    """

    num_classes: int
    maps: int = 1
    per_clip: dict[str, dict[str, float]] = field(default_factory=dict)
    """Scores of each clip; NaN if undefined."""

    def __post_init__(self) -> None:
        self._counts = np.zeros((self.num_classes,) * 2, np.int64)
        self._changes = Flicker(0, 0, 0)
        self._frames: list[float] = []
        self._objects: list[tuple[float, float]] = []
        self._windows: dict[int, list[float]] = {length: [] for length in WINDOWS}

    def add(self, clip: str, truth_THW: np.ndarray, prediction_THW: np.ndarray) -> None:
        """Scores a clip.

        Args:
            clip: its id.
            truth_THW: true masks, uint8, 255 where there is no label.
            prediction_THW: predicted masks, uint8.
        """
        frames, objects = np.zeros((len(truth_THW), *self._counts.shape), np.int64), []
        for truth, prediction in zip(
            *(np.split(each, self.maps, 1) for each in (truth_THW, prediction_THW)), strict=True
        ):
            counts_TKK = np.array(
                [confusion(*pair, self.num_classes) for pair in zip(truth, prediction, strict=True)]
            )
            objects += region_and_boundary(truth, prediction, counts_TKK)
            frames += counts_TKK
        counts, changes = frames.sum(0), flicker(truth_THW, prediction_THW)
        windows = {length: consistency(truth_THW, prediction_THW, length) for length in WINDOWS}
        self._counts += counts
        self._changes = Flicker(*(sum(pair) for pair in zip(self._changes, changes, strict=True)))
        self._frames += [macro_jaccard(counts_KK, absent="omit") for counts_KK in frames if counts_KK.any()]
        self._objects += objects
        for length, prediction in windows.items():
            self._windows[length] += prediction
        self.per_clip[clip] = {
            "jaccard": scores_of_counts(counts)["jaccard"],
            "flicker": changes.rates()[0],
            "mvc8": mean_where_labelled(windows[8]),
            **j_and_f(objects),
        }

    def table(self) -> dict[str, float]:
        """Returns all scores by name; NaN if undefined."""
        foreground, (errors, changes) = has_foreground(self._counts), self._changes.rates()
        scores = scores_of_counts(self._counts)
        consistency_scores = {
            f"mvc{length}": mean_where_labelled(windows) for length, windows in self._windows.items()
        }
        return {
            "jaccard": scores.pop("jaccard"),
            "jaccard_frames": mean_where_labelled(self._frames) if foreground else float("nan"),
            **j_and_f(self._objects),
            "dice": macro_dice(self._counts) if foreground else float("nan"),
            "accuracy": scores.pop("accuracy"),
            "class_accuracy": mean_where_labelled(accuracy_per_class(self._counts).tolist()),
            "flicker": errors,
            "change": changes,
            **consistency_scores,
            **scores,
        }

    def one_class(self) -> dict[str, float]:
        """Returns `jaccard` of the most frequent true class everywhere; empty if no true mask has foreground."""
        if not has_foreground(self._counts):
            return {}
        return {"jaccard": macro_jaccard(as_one_class(self._counts), absent="omit")}


def compare_with_base(scores: Mapping[str, float], base: Mapping[str, float]) -> dict[str, float]:
    """Compares a masker with its base: ``jaccard_gain``, and ``flicker_ratio`` (NaN if the base has none)."""
    ratio = scores["flicker"] / base["flicker"] if base["flicker"] else float("nan")
    return {"jaccard_gain": scores["jaccard"] - base["jaccard"], "flicker_ratio": ratio}
