"""All scores of masks of clips: of each frame, and of how steady they are.

Legend: T frames, H height, W width, K classes.
"""

import numpy as np

from maskcast.evaluation.mattes import dtssd, mad
from maskcast.evaluation.metrics import (
    accuracy,
    accuracy_per_class,
    confusion,
    has_foreground,
    macro_dice,
    macro_jaccard,
    mean_where_labelled,
)
from maskcast.evaluation.video import Flicker, consistency, flicker
from maskcast.labels import LabelMap

WINDOWS = (8, 16)  # frames of mVC

DEFINITIONS = {
    "jaccard": "macro Jaccard (mIoU) of one confusion matrix over all frames; absent classes are left out",
    "jaccard_frames": "mean over frames of the macro Jaccard of each frame alone; absent classes are left out",
    "dice": "macro Dice of one confusion matrix over all frames; absent classes are left out",
    "accuracy": "share of right pixels",
    "class_accuracy": "mean over classes of the share of their pixels that are right",
    "flicker": "share of pixels whose kind of error changed since the frame before, within clips",
    "change": "share of pixels whose predicted class changed since the frame before, within clips",
    "mvc8": "video consistency: of the pixels whose true class stays the same through 8 frames, the share whose "
    "predicted one does, right or wrong; mean over all such windows",
    "mvc16": "the same through 16 frames",
    "mad": "mean absolute difference of opacity, in thousandths",
    "dtssd": "root mean squared difference of the changes of opacity from frame to frame, in hundredths",
}
LOWER_IS_BETTER = frozenset({"flicker", "change", "mad", "dtssd"})


class ClassScores:
    """Scores of masks of classes over clips.

    Args:
        num_classes: of the label map, background included.
    """

    def __init__(self, num_classes: int) -> None:
        self._matrix_KK = np.zeros((num_classes, num_classes), np.int64)
        self._per_frame: list[float] = []
        self._flicker = Flicker(0, 0, 0)
        self._windows: dict[int, list[float]] = {frames: [] for frames in WINDOWS}

    def add(self, truth_THW: np.ndarray, found_THW: np.ndarray) -> None:
        """Scores a clip: true masks, 255 where there is no label, and found ones, uint8."""
        for truth_HW, found_HW in zip(truth_THW, found_THW, strict=True):
            frame_KK = confusion(truth_HW, found_HW, len(self._matrix_KK))
            self._matrix_KK += frame_KK
            self._per_frame.append(macro_jaccard(frame_KK, absent="omit"))
        pairs = zip(self._flicker, flicker(truth_THW, found_THW), strict=True)
        self._flicker = Flicker(*map(sum, pairs))
        for frames, scores in self._windows.items():
            scores += consistency(truth_THW, found_THW, frames)

    def table(self) -> dict[str, float]:
        """Returns all scores by name; NaN where nothing can be said, as of a Jaccard without foreground."""
        matrix_KK, nothing = self._matrix_KK, float("nan")
        some = has_foreground(matrix_KK)
        errors, changes = self._flicker.rates()
        return {
            "jaccard": macro_jaccard(matrix_KK, absent="omit") if some else nothing,
            "jaccard_frames": mean_where_labelled(self._per_frame) if some else nothing,
            "dice": macro_dice(matrix_KK, absent="omit") if some else nothing,
            "accuracy": accuracy(matrix_KK),
            "class_accuracy": mean_where_labelled(accuracy_per_class(matrix_KK).tolist()),
            "flicker": errors,
            "change": changes,
            **{f"mvc{frames}": mean_where_labelled(scores) for frames, scores in self._windows.items()},
        }


class AlphaScores:
    """Scores of mattes over clips; each frame counts the same."""

    def __init__(self) -> None:
        self._errors: list[float] = []
        self._changes: list[float] = []

    def add(self, truth_THW: np.ndarray, found_THW: np.ndarray) -> None:
        """Scores a clip: true and found opacity, uint8, 255 = 1."""
        self._errors += mad(truth_THW, found_THW)
        self._changes += dtssd(truth_THW, found_THW)

    def table(self) -> dict[str, float]:
        """Returns all scores by name, NaN where nothing can be said."""
        return {"mad": mean_where_labelled(self._errors), "dtssd": mean_where_labelled(self._changes)}


def scores_of(label_map: LabelMap) -> ClassScores | AlphaScores:
    """Returns scores of no clip yet for a map of kind ``classes`` or ``alpha``."""
    return AlphaScores() if label_map.kind == "alpha" else ClassScores(label_map.num_classes)
