"""Starts a run on the cluster.

The pipeline is uploaded if its content is new, and the experiment is created if missing. Prints the id of the
run. With --wait it follows the stages, and exits with 0 if the run succeeds, with 1 if it fails.
"""

import argparse
import os
from datetime import datetime

from maskcast.installation import git
from maskcast.progress import say
from pipelines.client.connection import add_connection
from pipelines.client.package import add_package, experiment_id, prepare_submission, quiet, upload
from pipelines.client.watch import follow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_package(parser)
    parser.add_argument("--name", help="name of the run (default: pipeline, Git commit and time)")
    parser.add_argument(
        "--wait", action="store_true", help="follow the run until it ends; Ctrl-C leaves it running"
    )
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    with prepare_submission(args) as (client, package, kfp_arguments):
        kfp_arguments |= upload(client, package)
        experiment = experiment_id(client, args.experiment)
        with quiet():
            started = client.run_pipeline(experiment, args.name or _name(package.pipeline), **kfp_arguments)
        say(f"experiment {args.experiment}, run {started.display_name}: {client.page(started.run_id)}")
        print(started.run_id, flush=True)
        return follow(client, started.run_id) if args.wait else 0


def _name(pipeline: str) -> str:
    # An image has no git.
    commit = os.environ.get("MASKCAST_GIT_SHA", "")[:7] or git("rev-parse", "--short", "HEAD")
    return " ".join(filter(None, [pipeline, commit, f"{datetime.now():%Y-%m-%d %H:%M:%S}"]))
