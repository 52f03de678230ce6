"""CPU seconds before anything happens: of help, of the commands that describe, and of the start of a training.

    python benchmarks/startup.py [--base CHECKOUT] [--rounds 5]

Each command runs as a process of its own, with one thread, in a folder with a toy clip store and a local MLflow
database; its CPU seconds, of user and system, are the median over the rounds. A training is stopped as its first
step begins. With CHECKOUT, another working tree of this project, each round measures both trees in turn.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from _common import ROOT, positive_int, print_table
from maskcast.errors import one_line_errors

SOURCE = {"layout": "synthetic", "train": 1, "val": 1, "unlabeled": 0, "hidden": 0}
PARAMS = {
    "prepare_clips": {"source": SOURCE, "height": 32, "width": 48, "workers": 1},
    "train_masker": {
        "model": {"arch": "unet", "width": 4},
        "training": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 2, "learning_rate": 0.001},
    },
}
# The loop asks for the learning rate when a step begins.
FIRST_STEP = """
import os, sys
from maskcast.__main__ import main
from maskcast.training.schedule import CosineSchedule
CosineSchedule.rate = lambda self, step: os._exit(0)
sys.exit(main(sys.argv[1:]))
"""
PORTS = ["--params", "toy.yaml", "--clips", "clips", "--masker", "masker", "--metrics", "metrics.json"]
COMMANDS = {  # by name: arguments for Python, and the expected exit code
    "import torch": (["-c", "import torch"], 0),
    "train_masker --help": (["-m", "maskcast", "train_masker", "--help"], 0),
    "train_detector --help": (["-m", "maskcast", "train_detector", "--help"], 0),
    "models list, of an empty registry": (["-m", "maskcast", "models", "list"], 2),
    "pipeline compile": (["-m", "maskcast", "pipeline", "compile", "--out", "pipeline.yaml"], 0),
    "pipeline status, of a server that refuses": (
        ["-m", "maskcast", "pipeline", "status", "--host", "http://127.0.0.1:9"],
        2,
    ),
    "train_masker, until its first step": (["-c", FIRST_STEP, "train_masker", *PORTS], 0),
}


def cpu_seconds(tree: Path, folder: Path, command: list[str], code: int) -> float:
    """Returns the CPU seconds of a command with the code in ``tree``."""
    env = os.environ | {
        "PYTHONPATH": f"{tree / 'src'}{os.pathsep}{tree}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "OMP_NUM_THREADS": "1",
    }
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, f"{command}: {done.stderr}"
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def prepare(tree: Path, folder: Path) -> None:
    """Creates the inputs of the commands, with the code of the tree itself."""
    folder.mkdir()
    (folder / "toy.yaml").write_text(yaml.safe_dump(PARAMS), encoding="utf-8")
    for name in ("dvc.yaml", "params.yaml", "pipelines", "components"):  # files to compile, and the cluster file
        (folder / name).symlink_to(tree / name)
    stage = ["-m", "maskcast", "prepare_clips", "--params", "toy.yaml", "--raw", ".", "--clips", "clips"]
    cpu_seconds(tree, folder, stage, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, help="another working tree of this project")
    parser.add_argument("--rounds", type=positive_int, default=5)
    args = parser.parse_args()
    if args.base is not None and not (args.base / "src/maskcast").is_dir():
        parser.error(f"--base {args.base}: has no src/maskcast; give another working tree of this project")
    trees = {"here": ROOT} if args.base is None else {"base": args.base.resolve(), "here": ROOT}
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place, name) for name in trees}
        for name, tree in trees.items():
            prepare(tree, folders[name])
        for title, (command, code) in COMMANDS.items():
            seconds: dict[str, list[float]] = {name: [] for name in trees}
            for round_ in range(args.rounds + 1):
                for name, tree in trees.items():
                    found = cpu_seconds(tree, folders[name], command, code)
                    if round_:  # the first round compiles bytecode and creates MLflow's tables
                        seconds[name].append(found)
            rows.append((title, *(f"{statistics.median(times):.2f}" for times in seconds.values())))
    print_table("CPU seconds of a process", ("command", *trees), rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
