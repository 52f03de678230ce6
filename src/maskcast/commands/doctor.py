"""The command `doctor`: what is there of all that maskcast works with, what is missing, and how to get it."""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

from maskcast.commands.pipeline import missing_package_errors, pipelines_module

DESCRIPTION = """\
Checks versions, devices, memory, disks, Git, DVC and its remote, MLflow, and a cluster if you name one, from the
folder that you run it in. It takes seconds.

Each row is `ok`, a `warning` (a run works, with limits) or `missing` (a run fails), with the remedy. The exit code
is 1 if something is missing. A small file is written to the DVC remote and to an MLflow server, and removed at
once; nothing else is changed."""
EPILOG = """\
Next, `maskcast dry-run` tells whether a pipeline runs, and how much memory and time it needs.

examples:
  maskcast doctor
  maskcast doctor --cluster my-cluster.yaml    # and what `preflight` checks
"""
STATES = {"ok": "ok", "failed": "missing", "not checked": "warning"}  # of preflight's


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0 if nothing is missing, else 1.

    Raises:
        MaskcastError: the file of the cluster, or the params, are wrong.
    """
    from maskcast.diagnostics import dvc_remote, machine, software, tracking
    from maskcast.diagnostics.checks import Check, format_results, run_checks

    here = Path.cwd()
    places = {"outputs": here, "DVC's cache": dvc_remote.cache_folder(dvc_remote.dvc_root())}
    checks: dict[str, Check] = {
        "Python": software.python,
        "packages": software.packages,
        "video files": software.video,
        "processors": machine.processors,
        "GPU": machine.gpus,
        "memory": machine.memory,
        "disk": partial(machine.disks, places),
        "Git": software.git,
        "DVC": dvc_remote.dvc,
        "MLflow": tracking.mlflow,
    }
    found = run_checks(checks)
    if args.cluster is not None:
        with missing_package_errors("doctor --cluster"):
            asked = pipelines_module("client.preflight").check_cluster(args.cluster)
        found += [replace(row, check=f"cluster: {row.check}", state=STATES[row.state]) for row in asked]
    print(format_results(found))
    return 1 if any(row.state == "missing" for row in found) else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "--cluster", metavar="FILE", type=Path, help="cluster file: also check what a run on that cluster needs"
    )
