"""The scores of each class that a masker knows: rows of a table."""

import numpy as np

from maskcast.evaluation.metrics import jaccard_per_class
from maskcast.labels import LabelMap

HEADER = ["class", "Jaccard", "precision", "recall", "true pixels", "most confused with"]


def worst_first(jaccard_K: np.ndarray, pixels_K: np.ndarray) -> tuple[list[int], list[int]]:
    """Returns the ids of the classes in the truth, the worst first, and of those that were only predicted.

    Args:
        jaccard_K: Jaccard index of each class; not finite where a class is neither in truth nor prediction.
        pixels_K: true pixels of each class.
    """
    order = [int(k) for k in np.argsort(jaccard_K, kind="stable") if np.isfinite(jaccard_K[k])]
    return [k for k in order if pixels_K[k]], [k for k in order if not pixels_K[k]]


def class_scores(label_map: LabelMap, counts_KK: np.ndarray) -> list[list[str]]:
    """Returns the rows of a table of the classes, the worst first, then those without true pixels; see `HEADER`.

    Args:
        label_map: of kind ``classes``.
        counts_KK: confusion matrix, rows = true class, columns = predicted class.
    """
    jaccard_K = jaccard_per_class(counts_KK)
    present, only_predicted = worst_first(jaccard_K, counts_KK.sum(axis=1))
    return [
        [label_map.classes[k], f"{jaccard_K[k]:.3f}", *_of_class(counts_KK, k, label_map)]
        for k in (*present, *only_predicted)
    ]


def _of_class(counts_KK: np.ndarray, k: int, label_map: LabelMap) -> list[str]:
    correct, true, predicted = int(counts_KK[k, k]), int(counts_KK[k].sum()), int(counts_KK[:, k].sum())
    precision, recall = (f"{correct / whole:.3f}" if whole else "-" for whole in (predicted, true))
    wrong_K = counts_KK[k].copy()
    wrong_K[k] = 0
    other = int(wrong_K.argmax())
    confused_with = f"{label_map.classes[other]} ({wrong_K[other] / true:.1%})" if wrong_K[other] else "-"
    return [precision, recall, f"{true:,}", confused_with]
