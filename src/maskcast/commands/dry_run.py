"""The command `dry-run`: whether the stages of a pipeline run, and what a real run will take."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskcast.commands.parser import add_pipeline

if TYPE_CHECKING:
    from maskcast.diagnostics.dry_run import Tried

GIB = 2**30
NEAR = 0.8  # of the memory that there is: a run that takes more of it is warned of
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


def run(given: argparse.Namespace) -> int:
    """Runs the command; returns 0 if every stage ran, else 1.

    Raises:
        MaskcastError: there is no such pipeline, or its params are wrong.
    """
    from maskcast.diagnostics.dry_run import dry_run
    from maskcast.progress import say
    from maskcast.report.tables import printed

    tried = []
    for one in dry_run(given.pipeline):
        tried.append(one)
        say(f"{one.name}: {one.said or 'runs'}")
    print(
        printed(
            ["stage", "steps", "per step", "memory", "GPU memory", "estimated time"],
            [_cells(one) for one in tried],
        )
    )
    for line in _closing(tried):
        print(line)
    return 1 if any(one.failed for one in tried) else 0


def _cells(one: "Tried") -> list[str]:
    found = one.forecast
    if found is None:
        return [one.name, "", "", "", "", "failed" if one.failed else "not tried"]
    return [
        one.name,
        str(found.steps) if found.steps else "",
        "" if found.step_s is None else f"{found.step_s:.3g} s",
        f"{found.memory / GIB:.2f} GiB" if found.memory else "",
        f"{found.gpu / GIB:.2f} GiB" if found.gpu else "",
        _time(found.seconds),
    ]


def _closing(tried: "Sequence[Tried]") -> list[str]:
    import psutil

    from maskcast.processors import memory_limit

    found = {one.name: one.forecast for one in tried if one.forecast is not None}
    lacking = [one.name for one in tried if one.forecast is None]
    total = _time(sum(each.seconds for each in found.values()))
    lines = [f"\nall stages: {total} on this machine" + (f", without {', '.join(lacking)}" if lacking else "")]
    room = min(memory_limit() or psutil.virtual_memory().total, psutil.virtual_memory().total)
    for name, each in found.items():
        if each.memory > NEAR * room:
            held, there = f"{each.memory / GIB:.1f}", f"{room / GIB:.1f} GiB"
            lines.append(f"warning: {name} took {held} of {there}; lower its batch size before it runs out")
    return lines


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
