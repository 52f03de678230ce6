"""What the benchmarks share: fair timing and tables that say which commit they measured."""

from __future__ import annotations

import importlib
import platform
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """Times every variant once a round, in shuffled order, so that load on the machine falls on all alike.

    Args:
        variants: What to call, by name; each is called once before the first round.
        rounds: How often.
        clock: CPU seconds of this process by default (other processes do not count); `time.perf_counter`
            where work happens elsewhere (processes, disk, a GPU).

    Returns:
        Seconds of each round, by name; round r of every variant was measured next to the others' round r.
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
    """Returns a package that a benchmark compares with, or None, which is said, where it is not installed."""
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
    """Prints a table and, under it, commit, machine and versions."""
    table = Table(*header)
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(width=120)
    console.print(title)
    console.print(table)
    console.print(
        f"commit {commit()} · {platform.machine()} · {torch.get_num_threads()} thread(s) · "
        f"torch {torch.__version__}"
    )


def commit() -> str:
    """Short hash of the checked-out commit, with `+changes` where tracked files of `src` differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + (
        "+changes" if git("diff", "--stat", "HEAD", "--", "src") else ""
    )
