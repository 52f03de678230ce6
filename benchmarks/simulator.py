"""Clips a minute of the simulator, and how far its clips score as the real masks do.

    python benchmarks/simulator.py [--clips 300]

Scores are macro Jaccard at frame 22 from ONE confusion matrix over all clips of 22 frames, classes absent from
both left out. Real: windows that start every 2 frames of the seven annotated videos in MASKCAST_SHARED_DATA.
Pooling more videos mixes moving and resting objects in each class and so lowers the score; "seven videos"
therefore scores the simulator as the real masks are: mean and spread over sets of seven simulated videos.
"""

import argparse
import os
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch

from _common import ROOT, positive_int, print_table
from maskcast.data.sources.clevrer import read_motion
from maskcast.data.sources.cutting import windows_in
from maskcast.errors import MaskcastError, one_line_errors
from maskcast.evaluation.metrics import confusion, macro_jaccard
from maskcast.models.forecasting.base import Predictor
from maskcast.models.forecasting.baselines import ConstantVelocity, Persistence
from maskcast.models.forecasting.rigid_body import RigidBody
from maskcast.simulator.camera import CLEVRER_CAMERA, Motion, paint_masks
from maskcast.simulator.scenes import simulate_clip, simulate_motion
from maskcast.stopping import exit_with_parent

FRAMES, CONTEXT, CLASSES = 22, 11, 49
SIZE = (160, 240)


def scores(clips: Iterable[np.ndarray], stride: int) -> np.ndarray:
    """Macro Jaccard at the last frame of the three baselines, (3,)."""
    matrices = np.zeros((3, CLASSES, CLASSES), np.int64)
    baselines: list[Predictor] = [Persistence(), ConstantVelocity(), RigidBody(CLEVRER_CAMERA, stride)]
    for masks in clips:
        context = torch.from_numpy(masks[None, :CONTEXT].copy())
        for matrix, baseline in zip(matrices, baselines, strict=True):
            forecast = baseline.forecast(context, FRAMES - CONTEXT)[0, -1].numpy()
            matrix += confusion(masks[-1], forecast, CLASSES)
    return np.array([macro_jaccard(matrix, absent="omit") for matrix in matrices])


def windows(motion: Motion, stride: int) -> list[np.ndarray]:
    masks = paint_masks(motion, *SIZE)
    return [masks[window] for window in windows_in(len(masks), FRAMES, stride, 2)]


def seven_videos(group: int, stride: int) -> np.ndarray:
    return scores((clip for k in range(7) for clip in windows(simulate_motion(7 * group + k), stride)), stride)


def real_scores(stride: int) -> np.ndarray:
    folder = Path(os.environ.get("MASKCAST_SHARED_DATA", ROOT / "../shared/data")) / "clevrer"
    annotations = sorted(folder.rglob("annotation_*.json"))
    if not annotations:
        raise MaskcastError(f"{folder}: no annotation_*.json; set MASKCAST_SHARED_DATA to a folder with clevrer/")
    return scores((clip for path in annotations for clip in windows(read_motion(path), stride)), stride)


def clips_per_minute(render: bool, clips: int, pool: ProcessPoolExecutor) -> float:
    make = partial(simulate_clip, render=render)
    list(pool.map(make, range(4)))
    start = time.perf_counter()
    for _ in pool.map(make, range(clips), chunksize=8):
        pass
    return 60 * clips / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=positive_int, default=300)
    parser.add_argument("--groups", type=positive_int, default=12, help="sets of seven simulated videos")
    parser.add_argument("--strides", type=positive_int, nargs="+", default=[5, 3])
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[tuple[object, ...]] = []
    for stride in options.strides:
        clips = (simulate_clip(seed, stride=stride, render=False)[1] for seed in range(options.clips))
        real, simulated = real_scores(stride), scores(clips, stride)
        sets = np.array([seven_videos(group, stride) for group in range(options.groups)])
        for k, name in enumerate(("copy last mask", "constant velocity", "rigid bodies")):
            spread = f"{sets[:, k].mean():.3f}"
            if len(sets) > 1:
                spread += f" ± {sets[:, k].std(ddof=1):.3f}"
            rows.append((stride, name, f"{real[k]:.3f}", f"{simulated[k]:.3f}", spread))
    header = (
        "stride",
        "forecaster",
        "real, seven videos",
        f"simulated, {options.clips} clips",
        "simulated, seven videos",
    )
    print_table("Macro Jaccard at frame 22", header, rows)
    with ProcessPoolExecutor(2, initializer=exit_with_parent) as pool:
        speeds = [
            ("frames and masks", f"{clips_per_minute(True, max(1, options.clips // 3), pool):.0f}"),
            ("masks only", f"{clips_per_minute(False, options.clips * 2, pool):.0f}"),
        ]
    print_table("22 frames at 160x240, two processes", ("clips of", "clips a minute"), speeds)


if __name__ == "__main__":
    with one_line_errors():
        main()
