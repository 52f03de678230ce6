"""Cancels a run: its pods are stopped, and the outputs of finished stages are kept."""

import argparse

from pipelines.client.connection import add_run, connect
from pipelines.client.stages import ENDED, run_state


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    with connect(args) as client:
        found = client.get_run(args.run_id)
        if run_state(found) in ENDED:
            print(f"already ended: {found.display_name}: {run_state(found)}")
            return 0
        client.terminate_run(args.run_id)
        print(f"cancelling; {client.command('watch', args.run_id)} shows when its pods have stopped")
    return 0
