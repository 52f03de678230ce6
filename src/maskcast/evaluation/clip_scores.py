"""All scores of masks of clips: of each frame, and of how steady they are.

Legend: T frames, H height, W width, K classes.
"""

from collections.abc import Iterable

import numpy as np

from maskcast.evaluation.mattes import dtssd, mad
from maskcast.evaluation.metrics import (
    accuracy,
    accuracy_per_class,
    confusion,
    macro_dice,
    macro_jaccard,
    mean_where_labelled,
)
from maskcast.evaluation.video import Flicker, consistency, flicker
from maskcast.labels import LabelMap

WINDOWS = (8, 16)  # frames of mVC

CLASS_SCORES = {
    "miou": "macro Jaccard of one confusion matrix of all frames, absent classes left out",
    "miou_per_frame": "mean over frames of each frame's macro Jaccard, absent classes left out",
    "dice": "macro Dice of one confusion matrix of all frames, absent classes left out",
    "pixel_accuracy": "share of right pixels",
    "class_accuracy": "mean over classes of the share of their pixels that are right",
    "flicker_errors": "share of pixels whose kind of error changes from frame to frame, within clips",
    "flicker_found": "share of pixels whose predicted class changes from frame to frame, within clips",
    "mvc8": "video consistency over 8 frames",
    "mvc16": "video consistency over 16 frames",
}
ALPHA_SCORES = {
    "mad": "mean absolute difference of opacity, thousandths",
    "dtssd": "difference of the changes of opacity from frame to frame, hundredths",
}
LOWER_IS_BETTER = frozenset({"flicker_errors", "flicker_found", "mad", "dtssd"})


def clip_scores(label_map: LabelMap, clips: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Returns the scores of one map: those of `CLASS_SCORES`, or of `ALPHA_SCORES` for an alpha.

    Args:
        label_map: of kind ``classes`` or ``alpha``.
        clips: true and found masks (T, H, W) uint8 of each clip, in the order of its frames.

    Returns:
        NaN where nothing can be said, e.g. of windows that are longer than all clips.
    """
    return _alpha(clips) if label_map.kind == "alpha" else _classes(label_map.num_classes, clips)


def _classes(num_classes: int, clips: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    matrix_KK = np.zeros((num_classes, num_classes), np.int64)
    per_frame: list[float] = []
    flickers: list[Flicker] = []
    windows: dict[int, list[float]] = {frames: [] for frames in WINDOWS}
    for truth_THW, found_THW in clips:
        for truth_HW, found_HW in zip(truth_THW, found_THW, strict=True):
            frame_KK = confusion(truth_HW, found_HW, num_classes)
            matrix_KK += frame_KK
            per_frame.append(macro_jaccard(frame_KK, absent="omit"))
        flickers.append(flicker(truth_THW, found_THW))
        for frames, scores in windows.items():
            scores += consistency(truth_THW, found_THW, frames)
    errors, found = Flicker(*np.sum(flickers or [Flicker(0, 0, 0)], axis=0).tolist()).rates()
    recall_K = accuracy_per_class(matrix_KK)
    return {
        "miou": macro_jaccard(matrix_KK, absent="omit"),
        "miou_per_frame": mean_where_labelled(per_frame),
        "dice": macro_dice(matrix_KK, absent="omit"),
        "pixel_accuracy": accuracy(matrix_KK),
        "class_accuracy": mean_where_labelled(recall_K.tolist()),
        "flicker_errors": errors,
        "flicker_found": found,
        **{f"mvc{frames}": mean_where_labelled(scores) for frames, scores in windows.items()},
    }


def _alpha(clips: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    errors: list[float] = []
    changes: list[float] = []
    for truth_THW, found_THW in clips:
        errors += mad(truth_THW, found_THW)
        changes += dtssd(truth_THW, found_THW)
    return {"mad": mean_where_labelled(errors), "dtssd": mean_where_labelled(changes)}
