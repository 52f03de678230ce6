"""The command `grid`: runs a grid of variants by DVC's experiment queue and compares their maskers."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from maskcast.commands.evaluate_many import score
from maskcast.commands.parser import add_number
from maskcast.digest import digest_json
from maskcast.errors import MaskcastError
from maskcast.params import load_params_file, section
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.runner.dvc_calls import in_order, needs_of, read_calls
from maskcast.runner.dvc_queue import Experiment, Queue
from maskcast.runner.grid import load_grid, split_stages
from maskcast.runner.mlflow_client import create_database
from maskcast.runner.outputs import check_not_exists

DESCRIPTION = "Runs variants of a pipeline in DVC's experiment queue and compares their maskers."
EPILOG = """\
FILE lists the variants, each by its changes to params.yaml:

  stage: train_masker        # whose maskers are compared; no later stage runs
  split: test                # the clips to score on (default val)
  variants:
    narrow: {train_masker.model.width: 8}
    wide: {train_masker.model.width: 16}
  product:                   # each variant with each of these values
    train_masker.training.seed: [1, 2, 3]

A value replaces everything under its key. Either part may be omitted. Stages that all variants share run once. All
params are checked before the first run begins. Each variant is a DVC experiment that starts from the last commit,
in a folder of its own: `dvc exp show` lists them, `dvc exp apply NAME` brings one into the working directory. If a
variant fails, it is reported and the others go on. Running the command again repeats only what has not succeeded
at this commit.

The --out folder gets
  index.html   tables, best numbers in bold, and pictures of the first clip
  scores.csv   one row per model and label map

Exit code 1: a variant failed. On Kubeflow: maskcast pipeline run-local --grid FILE, or submit.

examples:
  maskcast grid grid.yaml
  maskcast grid grid.yaml --jobs 2 --out results/memories
"""


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns the exit code 0, or 1 if a variant failed."""
    out = args.out or Path("results", args.grid.stem)
    check_not_exists(out, "out")
    if not (file := Path("dvc.yaml")).is_file():
        raise MaskcastError(f"{file}: not found; run this command in a folder with a dvc.yaml")
    unordered, _ = read_calls(file)
    if not unordered:
        raise MaskcastError(f"{file}: no entry runs a stage of maskcast; a grid needs one to vary")
    calls = {entry: unordered[entry] for entry in in_order(unordered)}
    content = load_params_file(Path("params.yaml"))
    values = {
        call.name: section(content, call.name, "params.yaml") for call in calls.values() if call.name in content
    }
    the_grid, variants = load_grid(args.grid, values, {call.name: call.stage.name for call in calls.values()})
    keys = {call.name: entry for entry, call in calls.items()}
    needs = {calls[entry].name: {calls[n].name for n in needed} for entry, needed in needs_of(calls).items()}
    target = calls[keys[the_grid.stage]]
    clips = target.ports["clips"]
    source = next((call.name for call in calls.values() if clips in call.paths("out").values()), None)
    parts = split_stages(args.grid, the_grid, variants, needs, source)

    queue = Queue(Path())
    stem = args.grid.stem
    used = {name: values[name] for name in (*parts.shared, *parts.varied)}
    shared = _experiment(f"{stem}-shared", {}, used, [keys[name] for name in parts.shared])
    experiments = {
        variant.name: _experiment(f"{stem}-{variant.name}", variant.sections, used, [keys[the_grid.stage]])
        for variant in variants
    }
    say(
        f"{pluralize(len(variants), 'variant')}; run once: {', '.join(parts.shared)}; run per variant: "
        f"{', '.join(parts.varied)}"
    )
    if failed := queue.run([shared], 1):
        raise MaskcastError(f"the stages that all variants share failed: {failed[shared.name]}")
    create_database()
    reasons = queue.run(list(experiments.values()), args.jobs)
    failed = {name: reasons[each.name] for name, each in experiments.items() if each.name in reasons}
    with tempfile.TemporaryDirectory(prefix="maskcast-grid-") as folder:
        queue.fetch(shared.name, clips, Path(folder, "clips"))
        succeeded = {name: Path(folder, name) for name in experiments if name not in failed}
        for name, path in succeeded.items():
            queue.fetch(experiments[name].name, target.ports["masker"], path)
        from maskcast.evaluation.many import EvaluationTask

        score(succeeded, EvaluationTask(Path(folder, "clips"), the_grid.split), out, failed)
    print(f"{out / 'index.html'} and scores.csv beside it")
    return 1 if failed else 0


def _experiment(
    name: str, changed: Mapping[str, dict[str, Any]], used: Mapping[str, Any], targets: Sequence[str]
) -> Experiment:
    """Returns an experiment for the queue; the digest of its params in its name tells whether it has run."""
    digest = digest_json([{**used, **changed}, list(targets)], 6)
    return Experiment(f"{name}-{digest}", changed, targets)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("grid", metavar="FILE", type=Path, help="the grid file")
    add_number(parser, "--jobs", 1, 1, "number of variants to run in parallel")
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="new folder for page and CSV (default results/<name of FILE>)"
    )
