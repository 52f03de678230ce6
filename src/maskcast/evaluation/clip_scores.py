"""All scores of masks of clips: per frame, and of stability over time.

Legend: T frames, H height, W width.
"""

import numpy as np

from maskcast.evaluation.definitions import DAVIS, FOREGROUND, MASKS, MATTES
from maskcast.evaluation.mattes import dtssd, mad
from maskcast.evaluation.metrics import mean_where_labelled
from maskcast.evaluation.video_scores import VideoScores
from maskcast.labels import LabelMap

DEFINITIONS = MASKS | DAVIS | FOREGROUND | MATTES
LOWER_IS_BETTER = frozenset({"flicker", "change", "mad", "dtssd"})


class AlphaScores:
    """Scores of mattes over clips; each frame has the same weight."""

    def __init__(self) -> None:
        self._errors: list[float] = []
        self._changes: list[float] = []

    def add(self, clip: str, truth_THW: np.ndarray, prediction_THW: np.ndarray) -> None:
        """Adds a clip: its id, true and predicted opacity, uint8, 255 = 1."""
        self._errors += mad(truth_THW, prediction_THW)
        self._changes += dtssd(truth_THW, prediction_THW)

    def table(self) -> dict[str, float]:
        """Returns all scores by name; NaN if undefined."""
        return {"mad": mean_where_labelled(self._errors), "dtssd": mean_where_labelled(self._changes)}


def scores_of(label_map: LabelMap) -> VideoScores | AlphaScores:
    """Returns empty scores for a map of kind ``classes`` or ``alpha``."""
    return AlphaScores() if label_map.kind == "alpha" else VideoScores(label_map.num_classes)
