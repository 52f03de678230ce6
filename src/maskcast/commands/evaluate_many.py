"""The command `evaluate-many`: scores and measures many maskers on the same clips."""

import argparse
import math
import shutil
from collections.abc import Mapping, Sequence
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
    from maskcast.evaluation.many import EvaluationTask, MaskerResult

DESCRIPTION = "Compares the scores and speed of many maskers on the same clips: one page and one CSV file."
EPILOG = """\
FOLDER is a masker that train_masker wrote, or a folder with several at any depth. Each masker is scored on every
label map that it shares with the clips, in a process of its own, one after the other. Folders that are not a
masker, and maskers without a shared map, are left out and reported.

The --out folder gets
  index.html   tables, the best Jaccard first, and pictures of the first clip
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


def score_grid(
    names: Sequence[str | None], maskers: Sequence[str], clips: str, split: str, out: str, page: str
) -> None:
    """Scores the maskers of a grid on Kubeflow; an output may be the record of a failed variant.

    Args:
        names: of the variants. Only a user of Kubeflow's page can give variants without a name, which get
            `variant` and their number, or with the same, of which all but the first get their number.
        maskers: folder of each variant's masker.
        clips: the clip store, or a reference to one.
        split: split whose clips are scored.
        out: folder to write: the page and the CSV file.
        page: file to write: a copy of the page.

    Raises:
        MaskcastError: no masker can be scored.
    """
    from maskcast.evaluation.many import EvaluationTask

    folders: dict[str, Path] = {}
    for number, (given, folder) in enumerate(zip(names, maskers, strict=True), start=1):
        name = f"variant {number}" if given is None else given
        folders[f"{name} ({number})" if name in folders else name] = resolve_reference(Path(folder))
    failed = {name: error for name, folder in folders.items() if (error := read_failure(folder))}
    succeeded = {name: folder for name, folder in folders.items() if name not in failed}
    score(succeeded, EvaluationTask(resolve_reference(Path(clips)), split), Path(out), failed)
    shutil.copy(Path(out, "index.html"), page)


def _macro_jaccard(result: "MaskerResult") -> float:
    """Returns the mean Jaccard over the maps that have one; below all others without any."""
    jaccards = [scores.get("jaccard", math.nan) for scores in result.scores.values()]
    defined = [jaccard for jaccard in jaccards if not math.isnan(jaccard)]
    return sum(defined) / len(defined) if defined else -1.0


def score(
    maskers: Mapping[str, Path],
    task: "EvaluationTask",
    out: Path,
    failed: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Scores maskers, prints a table of each label map, and writes page and CSV.

    Args:
        maskers: folder of each masker, by name.
        task: clips, split and settings of the evaluation.
        out: folder to write; must not exist.
        failed: errors of further maskers by name, which are listed on the page.

    Raises:
        MaskcastError: no masker can be scored.
    """
    from maskcast.evaluation import many
    from maskcast.report.many_page import write_many
    from maskcast.report.tables import format_numbers, format_table

    results: list[many.MaskerResult] = []
    left_out = {name: f"failed: {error}" for name, error in failed.items()}
    for name, reason in left_out.items():
        print(f"left out {name}: {reason}")
    for result in track(many.evaluate_many(maskers, task), "evaluating", len(maskers)):
        if isinstance(result, many.MaskerResult):
            results.append(result)
            if result.note:
                print(f"warning: {result.note}")
        else:
            left_out[result[0]] = str(result[1])
            print(f"left out {result[0]}: {result[1]}")
    results.sort(key=_macro_jaccard, reverse=True)
    if not results:
        name, reason = next(iter(left_out.items()))
        raise MaskcastError(f"no model can be scored, first {name}: {reason}")
    with atomic_output(out, "out") as partial:
        partial.mkdir()
        write_many(partial, results, left_out, task)
    for map_name in dict.fromkeys(name for result in results for name in result.scores):
        scored = [result for result in results if map_name in result.scores]
        scores, costs = list(scored[0].scores[map_name]), ["frame_ms", "memory_mib", "parameters"]
        columns = [format_numbers([result.scores[map_name][score] for result in scored]) for score in scores]
        columns += [format_numbers([getattr(result.speed, cost) for result in scored]) for cost in costs]
        rows = [[result.name, *row] for result, row in zip(scored, zip(*columns, strict=True), strict=True)]
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
