"""Scores of the forecasts of one forecaster over a whole split.

Legend: h horizon, K classes, H height, W width; clips are forecast in batches and not kept.
"""

import math
import resource
import time
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from maskcast.evaluation.boundary import j_and_f, region_and_boundary
from maskcast.evaluation.calibration import Reliability
from maskcast.evaluation.coco.class_masks import SegmentationAP
from maskcast.evaluation.horizons import HorizonCounts
from maskcast.evaluation.metrics import accuracy, jaccard_of_frames, macro_dice, macro_jaccard, mean_where_labelled
from maskcast.memory import process_memory

T = TypeVar("T")


class ForecastScores(HorizonCounts):
    """Counts of one forecaster over a split, and the scores computed from them.

    Args:
        num_classes: K.
        context_frames: number of context frames; the first forecast frame has the number `context_frames` + 1.
        horizon: h, number of forecast frames.

    Attributes:
        clip_ids: of all added clips.
        clip_jaccard: per clip and horizon, see `metrics.jaccard_of_frames`.
        clip_objects: J and F of each object of each clip, see `boundary`.
        seconds: time of forecasting.
        peak_memory_mib: peak memory of forecasting.
        reliability: of the confidence over all pixels; `reliability_of_objects` is that over object pixels.
    """

    def __init__(self, num_classes: int, context_frames: int, horizon: int) -> None:
        super().__init__(num_classes, horizon)
        self.context_frames = context_frames
        self.clip_ids: list[str] = []
        self.clip_jaccard: list[list[float]] = []
        self.clip_objects: list[list[tuple[float, float]]] = []
        self.seconds = self.peak_memory_mib = 0.0
        self.reliability, self.reliability_of_objects = Reliability(), Reliability(objects=True)
        self._ap = SegmentationAP(num_classes)
        self._squared_error, self._values = 0.0, 0

    def add(
        self,
        clip_id: str,
        truth_hHW: np.ndarray,
        forecast_hHW: np.ndarray,
        confidence_hHW: np.ndarray | None = None,
    ) -> None:
        """Adds one clip: true and forecast masks, (h, H, W) uint8, and their confidence, 255 = certain."""
        matrices = self.count(truth_hHW, forecast_hHW)
        self._ap.add(np.stack(matrices), truth_hHW, forecast_hHW, confidence_hHW)
        if confidence_hHW is not None:
            self.reliability.add(truth_hHW, forecast_hHW, confidence_hHW)
            self.reliability_of_objects.add(truth_hHW, forecast_hHW, confidence_hHW)
        self.clip_ids.append(clip_id)
        self.clip_jaccard.append(jaccard_of_frames(matrices))
        self.clip_objects.append(region_and_boundary(truth_hHW, forecast_hHW, np.stack(matrices)))

    def add_frames(self, truth_hHWC: np.ndarray, forecast_hHWC: np.ndarray) -> None:
        """Adds the errors of forecast frames, uint8."""
        difference = truth_hHWC.astype(np.float64) - forecast_hHWC
        self._squared_error += float((difference**2).sum()) / 255**2
        self._values += difference.size

    def merge(self, other: "ForecastScores") -> None:
        """Adds the clips of another, after those of this one."""
        self.matrix_hKK += other.matrix_hKK
        self.clip_ids += other.clip_ids
        self.clip_jaccard += other.clip_jaccard
        self.clip_objects += other.clip_objects
        self.seconds += other.seconds
        self.peak_memory_mib = max(self.peak_memory_mib, other.peak_memory_mib)
        self.reliability.merge(other.reliability)
        self.reliability_of_objects.merge(other.reliability_of_objects)
        self._ap.merge(other._ap)
        self._squared_error += other._squared_error
        self._values += other._values

    @property
    def frame_numbers(self) -> range:
        """The numbers of the forecast frames, counted from 1."""
        return range(self.context_frames + 1, self.context_frames + self.horizon + 1)

    def per_clip(self) -> dict[str, dict[str, float]]:
        """Returns `jaccard_last`, `jaccard_mean` and `j_and_f` of each clip, by score; NaNs are left out."""
        values_by_score = {
            "jaccard_last": [jaccard_h[self.last] for jaccard_h in self.clip_jaccard],
            "jaccard_mean": [mean_where_labelled(jaccard_h) for jaccard_h in self.clip_jaccard],
            "j_and_f": [j_and_f(objects)["j_and_f"] for objects in self.clip_objects],
        }
        return {
            score: {clip: value for clip, value in zip(self.clip_ids, values, strict=True) if np.isfinite(value)}
            for score, values in values_by_score.items()
        }

    @cached_property
    def _coco(self) -> dict[str, float]:
        """The COCO summary over all forecast frames."""
        return self._ap.compute()

    def table(self) -> dict[str, float]:
        """Returns all scores by name, NaN if undefined; for meanings see `report.evaluation_files.meanings`."""
        last_KK = self.matrix_hKK[self.last]
        scores = {
            "jaccard_last": macro_jaccard(last_KK, absent="omit"),
            "jaccard_last_no_background": macro_jaccard(last_KK, absent="omit", background=False),
            "jaccard_last_absent_zero": macro_jaccard(last_KK, absent="zero"),
            "jaccard_last_absent_zero_no_background": macro_jaccard(last_KK, absent="zero", background=False),
            "jaccard_mean": self.mean(),
            **j_and_f([each for objects in self.clip_objects for each in objects]),
            "accuracy_last": accuracy(last_KK),
            "dice_last": macro_dice(last_KK),
            "calibration_error": self.reliability.error(),
            "calibration_error_objects": self.reliability_of_objects.error(),
        }
        if not self.foreground:  # only background could be correct
            scores |= {name: math.nan for name in scores if name.startswith(("jaccard", "dice"))}
        scores |= {f"coco_{name}": value for name, value in self._coco.items()}
        if self._values:
            mse = self._squared_error / self._values
            scores |= {"frame_mse": mse, "frame_psnr": -10 * float(np.log10(mse)) if mse else float("inf")}
        scores |= {
            f"jaccard_h{number}": score
            for number, score in zip(self.frame_numbers, self.per_horizon(), strict=True)
        }
        return scores | {
            "seconds_per_clip": self.seconds / max(len(self.clip_ids), 1),
            "peak_memory_mib": self.peak_memory_mib,
        }


def track_cost(scores: ForecastScores, batches: Iterable[T]) -> Iterator[T]:
    """Yields the items of `batches`; adds the time and peak memory of making them to `scores`."""
    _reset_peak_memory()
    iterator = iter(batches)
    while True:
        start = time.perf_counter()
        batch = next(iterator, None)
        scores.seconds += time.perf_counter() - start
        if batch is None:
            scores.peak_memory_mib = _peak_memory_mib()
            return
        yield batch


def _reset_peak_memory() -> None:
    """Resets the peak memory (on Linux, writing 5 resets the process's high-water mark)."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")


def _peak_memory_mib() -> float:
    """Returns the peak memory since the last reset in MiB, of the GPU if there is one, else of the process."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak_kib = process_memory("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 if peak_kib is None else peak_kib / 2**20
