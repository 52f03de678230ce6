"""Scores by horizon: one confusion matrix per forecast frame, summed over a whole split.

A forecast frame that is labelled in no clip has no score and does not count in means.

Legend: h horizon, K classes, H height, W width.
"""

import numpy as np

from maskcast.evaluation.metrics import (
    Matrix,
    as_one_class,
    confusion,
    has_foreground,
    jaccard_of_frames,
    mean_where_labelled,
)


class HorizonCounts:
    """Confusion counts of forecast masks; counts of parts of a split add up to those of the split.

    Args:
        num_classes: K.
        horizon: h, number of forecast frames.
    """

    def __init__(self, num_classes: int, horizon: int) -> None:
        self.num_classes, self.horizon = num_classes, horizon
        self.matrix_hKK = np.zeros((horizon, num_classes, num_classes), np.int64)

    def count(self, truth_hHW: np.ndarray, forecast_hHW: np.ndarray) -> list[Matrix]:
        """Adds one clip, (h, H, W) uint8 class ids each, and returns its own matrices."""
        matrices = [
            confusion(truth_HW, forecast_HW, self.num_classes)
            for truth_HW, forecast_HW in zip(truth_hHW, forecast_hHW, strict=True)
        ]
        self.matrix_hKK += np.stack(matrices)
        return matrices

    @property
    def foreground(self) -> bool:
        """Whether the true masks have any foreground."""
        return any(map(has_foreground, self.matrix_hKK))

    @property
    def last(self) -> int:
        """The index of the last forecast frame that is labelled in any clip; the very last if none is."""
        labelled = np.flatnonzero(self.matrix_hKK.any(axis=(1, 2)))
        return int(labelled[-1]) if labelled.size else self.horizon - 1

    def per_horizon(self) -> list[float]:
        """Macro Jaccard of every forecast frame, without absent classes; NaN if no true mask has foreground."""
        return jaccard_of_frames(list(self.matrix_hKK))

    def mean(self) -> float:
        """Mean of `per_horizon` over the frames that have labels."""
        return mean_where_labelled(self.per_horizon())

    def one_class(self) -> dict[str, float]:
        """Returns `jaccard_last` and `jaccard_mean` of forecasting the most frequent true class everywhere.

        Empty if no true mask has foreground.
        """
        if not self.foreground:
            return {}
        constant = HorizonCounts(self.num_classes, self.horizon)
        constant.matrix_hKK = as_one_class(self.matrix_hKK)
        return {"jaccard_last": constant.per_horizon()[constant.last], "jaccard_mean": constant.mean()}
