"""Scores of several drawn futures of a clip: their mean, and the best one.

Shapes: h horizon, H height, W width.
"""

from collections.abc import Iterable

import numpy as np
from torch import Tensor

from maskcast.evaluation.horizons import HorizonCounts
from maskcast.evaluation.metrics import macro_jaccard, mean_where_labelled
from maskcast.models.forecasting import checked
from maskcast.models.forecasting.base import Predictor


class Future(Predictor):
    """A view of a forecaster, whose forecast is the future of one seed.

    Args:
        model: draws the future.
        seed: of the draw.
    """

    def __init__(self, model: Predictor, seed: int) -> None:
        self.input, self._model, self._seed = model.input, model, seed

    def forecast(self, context: Tensor, horizon: int) -> Tensor:
        """Returns the future."""
        return checked.future(self._model, context, horizon, self._seed)


def score_futures(
    clips: Iterable[tuple[np.ndarray, list[np.ndarray]]], count: int, num_classes: int, horizon: int
) -> dict[str, float]:
    """Returns macro Jaccards, of the last frame and averaged over frames, for the mean and the best future.

    "Mean" averages the scores that each future has over all clips. The best future of a clip has the highest mean
    over its frames.

    Args:
        clips: for each clip the truth (h, H, W) and ``count`` futures (h, H, W), uint8.
        count: number of futures.
        num_classes: K.
        horizon: h.
    """
    *per_future, best = (HorizonCounts(num_classes, horizon) for _ in range(count + 1))
    for truth_hHW, futures in clips:
        matrices_per_future = [
            counts.count(truth_hHW, future) for counts, future in zip(per_future, futures, strict=True)
        ]
        means = [
            mean_where_labelled([macro_jaccard(matrix, absent="omit") for matrix in matrices])
            for matrices in matrices_per_future
        ]
        best.matrix_hKK += np.stack(matrices_per_future[int(np.argmax(means))])
    jaccard_kh = np.array([counts.per_horizon() for counts in per_future])
    return {
        f"jaccard_last_mean_of_{count}": float(jaccard_kh[:, best.last].mean()),
        f"jaccard_mean_mean_of_{count}": mean_where_labelled(jaccard_kh.ravel().tolist()),
        f"jaccard_last_best_of_{count}": best.per_horizon()[best.last],
        f"jaccard_mean_best_of_{count}": best.mean(),
    }
