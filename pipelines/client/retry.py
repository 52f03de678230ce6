"""Restarts a run that failed or was cancelled, from where it ended.

Stages that succeeded are not run again. A training resumes from its checkpoint if the cluster file has a
workspace. The run keeps its id, version and params: after a change, submit a new one.
"""

import argparse

from maskcast.errors import MaskcastError
from maskcast.progress import say
from pipelines.client.connection import add_run, connect
from pipelines.client.stages import run_state
from pipelines.client.watch import follow


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_run(parser)
    parser.add_argument("--wait", action="store_true", help="watch the run until it ends")


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code.

    Raises:
        MaskcastError: the run has not failed, or the server refuses.
    """
    with connect(args) as client:
        state = run_state(client.get_run(args.run_id))
        if state not in ("FAILED", "CANCELED"):
            remedy = client.command("watch", args.run_id)
            raise MaskcastError(
                f"run {args.run_id} is {state}; only failed and cancelled runs can be restarted; see {remedy}"
            )
        client.retry_run(args.run_id)
        say(f"restarted: {client.page(args.run_id)}")
        return follow(client, args.run_id) if args.wait else 0
