"""The command `dry-run`: whether the stages of a pipeline run, and what a real run will take."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskcast.commands.parser import add_pipeline

if TYPE_CHECKING:
    from maskcast.diagnostics.dry_run_pipeline import TrialResult

GIB = 2**30
WARNING_SHARE = 0.8  # share of the available memory above which a stage gets a warning
DESCRIPTION = """\
Tries every stage of a pipeline before a real run: on a few clips of each part of your data, with the models, sizes
and batch sizes of its params, and a few steps of each training. It takes minutes.

The table shows, for each stage, the memory used, the seconds per training step, and how long the whole stage will
take. A stage that fails is reported with its error; stages that do not depend on it still run. The exit code is
then 1.

No outputs are kept, and no run is left in MLflow. A data set that `fetch_dataset` has already fetched is used as
it is; otherwise it is fetched completely."""
EPILOG = """\
PIPELINE is a folder with a dvc.yaml and its params file. Early stopping may end a training sooner than estimated.

examples:
  maskcast dry-run
  maskcast dry-run recipes/video
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0 if every stage ran, else 1.

    Raises:
        MaskcastError: the pipeline is not found, or its params are invalid.
    """
    from maskcast.diagnostics.dry_run_pipeline import dry_run
    from maskcast.progress import say
    from maskcast.report.tables import format_table

    results = []
    for result in dry_run(args.pipeline):
        results.append(result)
        say(f"{result.name}: {result.note or 'runs'}")
    print(
        format_table(
            ["stage", "steps", "per step", "memory", "GPU memory", "estimated time"],
            [_cells(result) for result in results],
        )
    )
    for line in _closing(results):
        print(line)
    return 1 if any(result.failed for result in results) else 0


def _cells(result: "TrialResult") -> list[str]:
    cost = result.cost
    if cost is None:
        return [result.name, "", "", "", "", "failed" if result.failed else "not tried"]
    return [
        result.name,
        str(cost.steps) if cost.steps else "",
        "" if cost.step_s is None else f"{cost.step_s:.3g} s",
        f"{cost.memory / GIB:.2f} GiB" if cost.memory else "",
        f"{cost.gpu / GIB:.2f} GiB" if cost.gpu else "",
        _time(cost.seconds),
    ]


def _closing(results: "Sequence[TrialResult]") -> list[str]:
    import psutil

    from maskcast.resources import memory_limit

    costs = {result.name: result.cost for result in results if result.cost is not None}
    missing = [result.name for result in results if result.cost is None]
    total = _time(sum(cost.seconds for cost in costs.values()))
    lines = [f"\nall stages: {total} on this machine" + (f", without {', '.join(missing)}" if missing else "")]
    total_memory = min(memory_limit() or psutil.virtual_memory().total, psutil.virtual_memory().total)
    for name, cost in costs.items():
        if cost.memory > WARNING_SHARE * total_memory:
            used, available = f"{cost.memory / GIB:.1f}", f"{total_memory / GIB:.1f} GiB"
            lines.append(f"warning: {name} used {used} of {available}; lower its batch size before it runs out")
    return lines


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
