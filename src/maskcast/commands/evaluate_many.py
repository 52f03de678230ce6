"""The command `evaluate-many`: scores and measures many maskers on the same clips."""

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from maskcast.commands.parser import add_number
from maskcast.errors import MaskcastError
from maskcast.labels import SPLITS
from maskcast.progress import track
from maskcast.runner.outputs import atomic_output, check_not_exists
from maskcast.runner.references import resolve_reference
from maskcast.runner.variants import read_failure

if TYPE_CHECKING:
    from maskcast.evaluation.many import EvaluationTask

DESCRIPTION = "Compares the scores and speed of many maskers on the same clips: one page and one CSV file."
EPILOG = """\
FOLDER is what train_masker wrote, or a folder with several of them at any depth. Each masker is scored on every
label map that it shares with the clips, in a process of its own, one after the other. What is not a masker, or has
other maps, is left out and reported.

The --out folder gets
  index.html   tables, best numbers in bold, and pictures of the first clip
  scores.csv   one row per model and label map

examples:
  maskcast evaluate-many models/grid --clips data/clips --out results/many
  maskcast evaluate-many models/masker models/segmenter --clips data/clips \\
      --split test --out results/both
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0."""
    check_not_exists(args.out, "out")
    from maskcast.evaluation import many

    task = many.EvaluationTask(args.clips, args.split, args.batch_size, args.precision)
    score(many.find_maskers(args.models), task, args.out)
    print(f"{args.out / 'index.html'} and scores.csv beside it")
    return 0


def score_grid(maskers: Mapping[str, str], clips: str, split: str, out: str, page: str) -> None:
    """Scores what Kubeflow hands over: the maskers of a grid by name, of which some may be word of a failure.

    Args:
        maskers: the folder of each.
        clips: the clip store, or a reference to one.
        split: whose clips are scored.
        out: gets page and CSV.
        page: gets the page once more.

    Raises:
        MaskcastError: when nothing can be scored.
    """
    from maskcast.evaluation.many import EvaluationTask

    folders = {name: resolve_reference(Path(folder)) for name, folder in maskers.items()}
    failed = {name: error for name, folder in folders.items() if (error := read_failure(folder))}
    whole = {name: folder for name, folder in folders.items() if name not in failed}
    score(whole, EvaluationTask(resolve_reference(Path(clips)), split), Path(out), failed)
    shutil.copy(Path(out, "index.html"), page)


def score(
    maskers: Mapping[str, Path],
    task: "EvaluationTask",
    out: Path,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Scores maskers, prints a table of each label map, and writes page and CSV.

    Args:
        maskers: the folder of each, by name.
        task: what they are scored on.
        out: a new folder.
        failed: why there is no masker of some other names, which the page tells.

    Raises:
        MaskcastError: when none can be scored.
    """
    from maskcast.evaluation import many
    from maskcast.report.many_page import format_numbers, write_many
    from maskcast.report.tables import format_table

    found: list[many.MaskerResult] = []
    left_out = {name: f"failed: {error}" for name, error in failed.items()}
    for name, why in left_out.items():
        print(f"left out {name}: {why}")
    for result in track(many.evaluate_many(maskers, task), "evaluating", len(maskers)):
        if isinstance(result, many.MaskerResult):
            found.append(result)
        else:
            left_out[result[0]] = str(result[1])
            print(f"left out {result[0]}: {result[1]}")
    if not found:
        name, reason = next(iter(left_out.items()))
        raise MaskcastError(f"no model can be scored, first {name}: {reason}")
    with atomic_output(out, "out") as partial:
        partial.mkdir()
        write_many(partial, found, left_out, task)
    for map_name in dict.fromkeys(name for one in found for name in one.scores):
        own = [one for one in found if map_name in one.scores]
        scores, costs = list(own[0].scores[map_name]), ["frame_ms", "memory_mib", "parameters"]
        columns = [format_numbers([one.scores[map_name][score] for one in own]) for score in scores]
        columns += [format_numbers([getattr(one.speed, cost) for one in own]) for cost in costs]
        rows = [[one.name, *row] for one, row in zip(own, zip(*columns, strict=True), strict=True)]
        print(format_table(["model", *scores, *costs], rows, f"{map_name}, {task.split}"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("models", metavar="FOLDER", nargs="+", type=Path, help="a masker, or a folder of several")
    parser.add_argument("--clips", metavar="FOLDER", type=Path, required=True, help="clip store with true masks")
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="new folder for page and CSV")
    parser.add_argument("--split", choices=SPLITS, default="val", help="split that is scored (default val)")
    add_number(parser, "--batch-size", 16, 1, "frames per forward pass")
    parser.add_argument(
        "--precision", choices=("bf16", "fp32"), default="bf16", help="autocast to bf16 (default) or all in fp32"
    )
