"""Scores forecasters by SlotFormer's protocol for CLEVRER (Wu et al. 2023, arXiv 2210.05861; they publish 49.42).

    python benchmarks/slotformer.py DATA [--model NAME=FOLDER ...]

Of every 2nd frame 6 are seen and 42 are forecast; windows with objects that enter after the fourth frame are left
out. In each frame, at 64x64, true objects are matched to forecast ones so that the sum of their IoU is largest;
the mean over the true objects, over frames and over windows is the score, in percent. DATA holds CLEVRER's
annotations; `simulated` draws `--clips` videos instead. The first such window of each video counts, as there; all
of them stand beside it.

What differs: SlotFormer sees frames and finds objects without labels; here the true masks are seen, with classes.
Its truth are the masks of a detector on the 5000 videos of the validation split; here it is painted from the
annotations at hand, some of the training split. It learned from CLEVRER's training videos at this stride; the
forecasters here from what they were given. An object enters where the masks first show it; there, by a flag of the
annotation.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from _common import positive_int, print_table
from forecast_losses import motions
from maskcast.data.images import resize_masks
from maskcast.errors import MaskcastError, one_line_errors
from maskcast.models.forecasting import checked
from maskcast.models.forecasting.base import Predictor
from maskcast.models.forecasting.baselines import ConstantVelocity, Persistence
from maskcast.models.forecasting.rigid_body import RigidBody
from maskcast.models.forecasting.table import load_forecaster
from maskcast.simulator.camera import CLEVRER_CAMERA, paint_masks

STRIDE, SEEN, FORECAST, SIZE = 2, 6, 42, 64
KNOWN = 4  # frames: an object first visible later has entered
PARTS = (14, 28, 42)  # scores are also computed up to these forecast frames


def windows(video_THW: np.ndarray, step: int) -> Iterator[np.ndarray]:
    """Yields the windows (48, H, W) of a video's masks that no object enters."""
    for start in range(0, len(video_THW) - STRIDE * (SEEN + FORECAST - 1), step):
        window_THW = video_THW[start::STRIDE][: SEEN + FORECAST]
        if set(np.unique(window_THW[KNOWN:])) <= {0, *np.unique(window_THW[:KNOWN]).tolist()}:
            yield window_THW


def matched_iou(truth_HW: np.ndarray, found_HW: np.ndarray) -> float:
    """Returns the mean IoU of the true objects, each matched to a different region; NaN without objects."""
    true, found = [np.stack([ids == k for k in np.unique(ids)]) for ids in (truth_HW, found_HW)]
    true = true[np.unique(truth_HW) > 0]
    if not len(true):
        return float("nan")
    both_NM = np.einsum("nhw,mhw->nm", true.astype(int), found.astype(int))
    iou_NM = both_NM / (true.sum((1, 2))[:, None] + found.sum((1, 2)) - both_NM)
    return float(iou_NM[linear_sum_assignment(iou_NM, maximize=True)].sum() / len(true))


def score(predictor: Predictor, window_THW: np.ndarray) -> np.ndarray:
    """Returns the score of each forecast frame, (42,)."""
    context_BTHW = torch.from_numpy(window_THW[None, :SEEN].copy())
    found_hHW = checked.forecast(predictor, context_BTHW, FORECAST)[0].numpy()
    pairs = zip(*(resize_masks(each, SIZE, SIZE) for each in (window_THW[SEEN:], found_hHW)), strict=True)
    return np.array([matched_iou(*pair) for pair in pairs])


def main() -> None:
    """Forecasts all windows and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of CLEVRER's release, or `simulated`")
    parser.add_argument("--model", nargs="+", default=[], metavar="NAME=FOLDER", help="trained forecasters")
    parser.add_argument("--step", type=positive_int, default=2, help="frames between the windows of a video")
    parser.add_argument("--clips", type=positive_int, default=100, help="simulated videos")
    parser.add_argument("--size", type=positive_int, nargs=2, default=[160, 240], metavar=("HEIGHT", "WIDTH"))
    args = parser.parse_args()
    predictors: dict[str, Predictor] = {"copy": Persistence(), "constant velocity": ConstantVelocity()}
    predictors["rigid_body"] = RigidBody(CLEVRER_CAMERA, STRIDE)
    for name, _, folder in (model.partition("=") for model in args.model):
        predictors[name] = load_forecaster(Path(folder))[0]
    first: dict[str, list[np.ndarray]] = {name: [] for name in predictors}
    every: dict[str, list[np.ndarray]] = {name: [] for name in predictors}
    for motion in motions(args.data, args.clips):
        for k, window_THW in enumerate(windows(paint_masks(motion, *args.size), args.step)):
            for name, predictor in predictors.items():
                every[name].append(score(predictor, window_THW))
                if k == 0:
                    first[name].append(every[name][-1])
    if not every["copy"]:
        raise MaskcastError(f"{args.data}: an object enters each window; give more videos")
    rows = [
        [name, *(f"{100 * np.nanmean(some):.2f}" for some in (first[name], every[name]))]
        + [f"{100 * np.nanmean(np.stack(every[name])[:, :part]):.2f}" for part in PARTS[:-1]]
        for name in predictors
    ]
    counted = f"{len(first['copy'])} videos, {len(every['copy'])} windows"
    title = f"{args.data}: {counted}; mean matched IoU at 64x64, percent"
    print_table(
        title, ["", "first windows", "all windows", *(f"first {part} frames" for part in PARTS[:-1])], rows
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
