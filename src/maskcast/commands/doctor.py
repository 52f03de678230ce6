"""The command `doctor`: checks what maskcast needs on this machine, and how to get what is missing."""

import argparse
from contextlib import suppress
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
Next, `maskcast dry-run` checks whether a pipeline runs, and how much memory and time it needs.

examples:
  maskcast doctor
  maskcast doctor --cluster my-cluster.yaml    # and what `preflight` checks
"""
STATES = {"ok": "ok", "failed": "missing", "not checked": "warning"}  # by state of preflight


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0 if nothing is missing, else 1.

    Raises:
        MaskcastError: the cluster file or the params are invalid.
    """
    from maskcast.diagnostics import dvc_remote, machine, software, tracking
    from maskcast.diagnostics.checks import Check, format_results, run_checks

    folders = {"outputs": Path.cwd(), "DVC's cache": dvc_remote.cache_folder(dvc_remote.dvc_root())}
    checks: dict[str, Check] = {
        "Python": software.python,
        "packages": software.packages,
        "video files": software.video,
        "processors": machine.processors,
        "GPU": machine.gpus,
        "memory": machine.memory,
        "disk": partial(machine.disks, folders),
        "Git": software.git,
        "DVC": dvc_remote.dvc,
        "MLflow": tracking.mlflow,
    }
    with suppress(ImportError, OSError):  # of which the row of the GPU tells
        import torch  # noqa: F401 - the first import on a machine may take longer than the checks' limit
    rows = run_checks(checks, local=checks.keys() - {"DVC", "MLflow"})
    if args.cluster is not None:
        with missing_package_errors("doctor --cluster"):
            cluster_rows = pipelines_module("client.preflight").check_cluster(args.cluster)
        rows += [replace(row, check=f"cluster: {row.check}", state=STATES[row.state]) for row in cluster_rows]
    print(format_results(rows))
    return 1 if any(row.state == "missing" for row in rows) else 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument(
        "--cluster", metavar="FILE", type=Path, help="cluster file: also check what a run on that cluster needs"
    )
