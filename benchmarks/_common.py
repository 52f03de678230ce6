"""Shared code of the benchmarks: fair timing, and tables that state the measured commit."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskcast.report.tables import format_table

ROOT = Path(__file__).resolve().parents[1]


def positive_int(text: str) -> int:
    """Parses a positive number from a command line."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def time_interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Times every variant once per round, in random order, so that other load affects all equally.

    Args:
        variants: Functions by name; each is called once before the first round.
        rounds: Number of rounds.
        clock: By default CPU seconds of this process, which other processes do not affect; use `time.perf_counter`
            if work is done elsewhere (processes, disk, a GPU).

    Returns:
        Seconds of each round, by name; round r of all variants was measured close together.
    """
    order = list(variants)
    shuffle = random.Random(0).shuffle
    for call in variants.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            start = clock()
            variants[name]()
            seconds[name].append(clock() - start)
    return seconds


def peer(module: str) -> Any:
    """Imports a package to compare with; prints a note and returns None if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        print(f"{package} is not installed, ours is measured alone: uv pip install 'maskcast[benchmarks]'")
        return None


def ratio(base: Sequence[float], other: Sequence[float]) -> float:
    """Median over rounds of base / other: how many times faster `other` is."""
    return statistics.median(b / o for b, o in zip(base, other, strict=True))


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table, with commit, machine and versions below it."""
    print(format_table(header, [list(map(str, row)) for row in rows], title))
    print(
        f"commit {commit()} · {platform.machine()} · {torch.get_num_threads()} thread(s) · "
        f"torch {torch.__version__}"
    )


def write_untrained(
    folder: Path,
    num_classes: int,
    height: int,
    width: int,
    *,
    seen: int,
    horizon: int,
) -> None:
    """Writes `masker`, `forecaster` and `maskcast` (both as a registered pipeline), with random weights.

    Args:
        folder: Where to write.
        num_classes: Number of classes.
        height: Rows of a frame.
        width: Columns of a frame.
        seen: Context frames of the pipeline.
        horizon: Frames that it forecasts.
    """
    from maskcast.labels import single_map
    from maskcast.models.base import save_model
    from maskcast.models.forecasting.configs import ConvLSTMConfig
    from maskcast.models.segmentation.configs import UNetConfig
    from maskcast.models.segmentation.table import save_masker
    from maskcast.registry.artifact import write_artifact
    from maskcast.registry.bundle import write_bundle
    from maskcast.registry.kinds import ForecastDescription

    torch.manual_seed(0)
    classes = tuple(f"class {k}" for k in range(num_classes))
    masker, forecaster = UNetConfig(width=16), ConvLSTMConfig()
    save_masker(folder / "masker", masker.build(single_map(classes)), masker, {})
    model, meta = forecaster.build(num_classes), {"classes": classes}
    save_model(folder / "forecaster", model, forecaster, num_classes=num_classes, meta=meta)
    about = ForecastDescription(
        kind="pipeline",
        context_frames=seen,
        horizon=horizon,
        precision="fp32",
        height=height,
        width=width,
        frame_stride=1,
        classes=classes,
    )
    write_bundle(folder / "maskcast/data", about, {name: folder / name for name in ("masker", "forecaster")})
    shapes = ((-1, -1, -1, -1, 3), (-1, horizon, -1, -1))
    write_artifact(folder / "maskcast", "", np.zeros((1, seen, 16, 24, 3), np.uint8), shapes)


def commits(runs: Iterable[Mapping[str, Any]]) -> str:
    """Returns the commits at which runs were made, of which some may be of earlier calls."""
    return ", ".join(sorted({run["commit"] for run in runs}))


def commit() -> str:
    """Short hash of the checked-out commit, with `+changes` where tracked files of `src` differ from it.

    Uses `MASKCAST_GIT_SHA` if it is set, as in an image, which has no Git repository.
    """
    if sha := os.environ.get("MASKCAST_GIT_SHA"):
        return sha[:7]

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        "+changes" if git("diff", "--stat", "HEAD", "--", "src") else ""
    )
