"""Frames a second of making masks agree and packing them: in processes, as `generate_masks` does, and in threads.

    python benchmarks/agreeing.py [--rounds 7] [--clips 24]

What a masker would have found in simulated clips of 22 frames, 160x240 and 49 classes, is in memory; windows of 11
frames agree. One packer works for each processor that this process may use. Both must end with the same files.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from _common import positive_int, print_table, ratio, time_interleaved
from maskcast.data.clip_store.finished import FinishedClips
from maskcast.errors import one_line_errors
from maskcast.inference.clip_packing import Packer, ParallelPacking, parallel_packers
from maskcast.inference.predictions import MapPrediction, Predictions
from maskcast.labels import MASK, single_map
from maskcast.memory import keep_freed_memory
from maskcast.resources import num_cpus
from maskcast.simulator.camera import CLASSES
from maskcast.simulator.scenes import simulate_clip

FRAMES, HEIGHT, WIDTH, AGREEING, LEVELS, DISTINCT = 22, 160, 240, 11, 8, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive_int, default=7)
    parser.add_argument("--clips", type=positive_int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as in every stage
    maps = single_map(CLASSES)
    some = [found_in(clip) for clip in range(min(DISTINCT, args.clips))]
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str) -> None:
            finished = FinishedClips(Path(folder), name)
            packer = Packer(maps, LEVELS, AGREEING, [FRAMES] * args.clips, finished)
            packers = (
                [packer] * num_cpus() if name == "threads" else parallel_packers(packer, FRAMES * HEIGHT * WIDTH)
            )
            with ParallelPacking(packers) as packing:
                for clip in range(args.clips):
                    packing.add(clip, some[clip % len(some)])

        seconds = time_interleaved(
            {name: partial(run, name) for name in ("threads", "processes")},
            args.rounds,
            time.perf_counter,
        )
        files = [FinishedClips(Path(folder), name).folder for name in seconds]
        for path in files[0].iterdir():
            assert path.read_bytes() == (files[1] / path.name).read_bytes(), path.name
    print_rates(seconds, args.clips * FRAMES)


def print_rates(seconds: dict[str, list[float]], frames: int) -> None:
    rows: list[Sequence[str]] = [
        (name, f"{frames / statistics.median(taken):.0f}", f"{ratio(seconds['threads'], taken):.2f}")
        for name, taken in seconds.items()
    ]
    title = f"Masks that agree, {num_cpus()} processors, {HEIGHT}x{WIDTH}, {len(CLASSES)} classes"
    print_table(f"{title} (equal files)", ("in", "frames/s", "times"), rows)


def found_in(clip: int) -> Predictions:
    """Simulates the output of an uncertain masker for a clip: blurred borders, and noise in all classes."""
    _, masks_THW = simulate_clip(clip, frames=FRAMES, height=HEIGHT, width=WIDTH, render=False)
    draw = np.random.default_rng(clip).standard_normal
    masks, sure, objects = [], [], []
    for mask_HW in masks_THW:
        logits_HWK = np.stack([cv2.resize(draw((20, 30)), (WIDTH, HEIGHT)) for _ in CLASSES], -1)
        for k in np.unique(mask_HW):
            logits_HWK[..., k] += 9 * cv2.GaussianBlur((mask_HW == k).astype(np.float64), (0, 0), 1.2)
        logits_HWK[..., 0] += 1.5
        likely_HWK = np.exp(logits_HWK - logits_HWK.max(-1, keepdims=True)).astype(np.float32)
        likely_HWK /= likely_HWK.sum(-1, keepdims=True)
        masks.append(likely_HWK.argmax(-1).astype(np.uint8))
        sure.append(likely_HWK.max(-1))
        objects.append(likely_HWK[masks[-1] > 0])
    return {MASK: MapPrediction(np.stack(masks), np.stack(sure), objects)}


if __name__ == "__main__":
    with one_line_errors():
        main()
