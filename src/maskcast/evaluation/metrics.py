"""Segmentation scores, all computed from one confusion matrix.

Matrices are counted over the whole split and scored at the end, because a mean of per-batch scores is a different
number. Every score names its reduction; none silently averages over classes that never occur.

Legend: K classes; a matrix M_KK has rows = target class, columns = predicted class, in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.reading import pluralize

Matrix = NDArray[np.int64]
Absent = Literal["omit", "zero"]

CHUNK = 2**20  # pixels that are counted at once; each takes ten bytes of temporary memory
SMALL = 2**16  # pixels: a table of all pairs of ids takes longer to clear and to search than fewer ones to count


def confusion(target: np.ndarray, prediction: np.ndarray, num_classes: int) -> Matrix:
    """Counts the pixels of every (target class, predicted class) pair, where the target has a label.

    Args:
        target: Class ids, any shape, an integer dtype with values 0..255; `IGNORE` is no label.
        prediction: Class ids, same shape as `target`.
        num_classes: K, at most 255; ids 0..K-1 are classes.

    Returns:
        M_KK int64, rows = target, columns = prediction; matrices of the parts of a split add up to its own.

    Raises:
        MaskcastError: A class id is K or above, or the shapes differ.
    """
    if target.shape != prediction.shape:
        raise MaskcastError(f"target masks {target.shape} and predicted masks {prediction.shape} differ in shape")
    target_ids, predicted_ids = _as_uint8(target).ravel(), _as_uint8(prediction).ravel()
    if target_ids.size < SMALL:
        labelled = target_ids != IGNORE
        rows, columns = target_ids[labelled].astype(np.intp), predicted_ids[labelled]
        if max(rows.max(initial=0), columns.max(initial=0)) < num_classes:
            cells = np.bincount(rows * num_classes + columns, minlength=num_classes**2)
            return cells.reshape(num_classes, num_classes)
    # 8 + 8 bits index a 256 x 256 table, so invalid ids are found in it without a further pass.
    pairs = np.zeros(1 << 16, np.int64)
    for start in range(0, target_ids.size, CHUNK):
        chunk = slice(start, start + CHUNK)
        pairs += np.bincount((target_ids[chunk].astype(np.uint16) << 8) | predicted_ids[chunk], minlength=1 << 16)
    table = pairs.reshape(256, 256)
    table[IGNORE] = 0
    for name, counts in (("target", table.sum(axis=1)), ("predicted", table.sum(axis=0))):
        invalid_ids = np.flatnonzero(counts[num_classes:])
        if invalid_ids.size:
            invalid = num_classes + int(invalid_ids[0])
            raise MaskcastError(
                f"{name} masks contain class id {invalid} ({pluralize(int(counts[invalid]), 'pixel')}), but the "
                f"classes are 0..{num_classes - 1}: fix the masks, or add classes"
            )
    return table[:num_classes, :num_classes].copy()


def has_foreground(matrix: Matrix) -> bool:
    """Whether the target has a class other than 0; if not, a score would only measure background."""
    return bool(matrix[1:].any())


def as_one_class(counts: Matrix) -> Matrix:
    """Returns the counts of a constant prediction, the target's most frequent class, for the same target.

    Args:
        counts: (..., K, K) pixels, rows = target; the class is the most frequent one of all matrices.
    """
    pixels = counts.sum(axis=-1)
    constant = np.zeros_like(counts)
    constant[..., pixels.reshape(-1, pixels.shape[-1]).sum(axis=0).argmax()] = pixels
    return constant


def jaccard_per_class(matrix: Matrix) -> NDArray[np.float64]:
    """Intersection over union of each class, tp / (tp + fp + fn).

    Args:
        matrix: M_KK pixels.

    Returns:
        (K,) float64 in 0..1; NaN for a class that is absent from target and prediction alike (0 / 0).
    """
    true_positives, target, predicted = _margins(matrix)
    return _divide(true_positives, target + predicted - true_positives)


def macro_jaccard(matrix: Matrix, *, absent: Absent, background: bool = True) -> float:
    """Unweighted mean over classes of the pooled per-class Jaccard index.

    Args:
        matrix: M_KK pixels, summed over all that is scored.
        absent: What a class absent from target and prediction does: "omit" leaves it out of the mean
            (torchmetrics 1.0 and later); "zero" counts it as 0 (torchmetrics up to 0.11.4; comparable only
            on sets that hold every class).
        background: Whether class 0 takes part in the mean.

    Returns:
        The score in 0..1; NaN when "omit" leaves no class over.
    """
    return _macro(jaccard_per_class(matrix), absent, background)


def foreground_jaccard(matrix: Matrix) -> dict[str, float]:
    """Jaccard of the one class beside the background, as ``jaccard_no_background``.

    Half of such a map's macro Jaccard comes from the background, whose Jaccard is near 1 if objects are small. The
    result is empty if there are more classes, or the target has no foreground.
    """
    if len(matrix) != 2 or not has_foreground(matrix):
        return {}
    return {"jaccard_no_background": macro_jaccard(matrix, absent="omit", background=False)}


def scores_of_counts(matrix: Matrix) -> dict[str, float]:
    """Returns `jaccard` (macro, absent classes left out), `accuracy`, and what `foreground_jaccard` returns.

    Without true foreground, `jaccard` is NaN: only background could be correct.
    """
    jaccard = macro_jaccard(matrix, absent="omit") if has_foreground(matrix) else float("nan")
    return {"jaccard": jaccard, "accuracy": accuracy(matrix), **foreground_jaccard(matrix)}


def foreground_text(scores: Mapping[str, float], name: str = "jaccard_no_background", digits: int = 4) -> str:
    """Returns the foreground's score as text to follow the macro Jaccard; empty without such a score."""
    return f" (foreground {scores[name]:.{digits}f})" if name in scores else ""


def dice_per_class(matrix: Matrix) -> NDArray[np.float64]:
    """Dice coefficient (F1) of each class, 2 tp / (2 tp + fp + fn), shaped as `jaccard_per_class`."""
    true_positives, target, predicted = _margins(matrix)
    return _divide(2 * true_positives, target + predicted)


def macro_dice(matrix: Matrix) -> float:
    """Unweighted mean over classes of the pooled per-class Dice; absent classes are left out, NaN without any."""
    return _macro(dice_per_class(matrix), "omit", background=True)


def accuracy(matrix: Matrix) -> float:
    """Fraction of correct pixels among all counted ones (micro, background included); NaN without pixels."""
    total = int(matrix.sum())
    return int(np.trace(matrix)) / total if total else float("nan")


def accuracy_per_class(matrix: Matrix) -> NDArray[np.float64]:
    """Fraction of correct pixels of each target class (recall); (K,) float64, NaN without pixels."""
    true_positives, target, _ = _margins(matrix)
    return _divide(true_positives, target)


def jaccard_of_frames(matrices: Sequence[Matrix]) -> list[float]:
    """Macro Jaccard of each frame of one clip, absent classes left out; NaN for a frame without labels.

    If no frame's truth has foreground, all are NaN: only background could be correct.
    """
    if not any(map(has_foreground, matrices)):
        return [float("nan")] * len(matrices)
    return [macro_jaccard(matrix, absent="omit") for matrix in matrices]


def mean_where_labelled(scores: Sequence[float]) -> float:
    """Mean of a clip's scores over frames with labels (others have NaN); NaN if no frame has labels."""
    defined = [score for score in scores if not np.isnan(score)]
    return float(np.mean(defined)) if defined else float("nan")


def _as_uint8(masks: np.ndarray) -> NDArray[np.uint8]:
    if masks.dtype == np.uint8:
        return masks
    if not np.issubdtype(masks.dtype, np.integer):
        raise MaskcastError(f"masks of dtype {masks.dtype} are not class ids: give integers 0..255")
    if masks.size and not 0 <= masks.min() <= masks.max() <= 255:
        invalid = masks.min() if masks.min() < 0 else masks.max()
        raise MaskcastError(f"masks contain class id {invalid}: give integers 0..255")
    return masks.astype(np.uint8)


def _margins(matrix: Matrix) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    return np.diagonal(matrix), matrix.sum(axis=1), matrix.sum(axis=0)


def _divide(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> NDArray[np.float64]:
    result = np.full(len(numerator), np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator > 0)


def _macro(per_class: NDArray[np.float64], absent: Absent, background: bool) -> float:
    scores = per_class if background else per_class[1:]
    if absent == "zero":
        return float(np.nan_to_num(scores).mean()) if scores.size else float("nan")
    present = scores[~np.isnan(scores)]
    return float(present.mean()) if present.size else float("nan")
