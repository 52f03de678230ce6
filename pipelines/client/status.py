"""Shows the stages of a run, or lists the last runs of the namespace.

Exits with 1 when the run failed or was cancelled.
"""

import argparse

from rich.console import Console

from pipelines.client.connection import add_connection, connect
from pipelines.client.watch import exit_code, follow, outcome, stage_states, stage_table
from pipelines.options import add_cluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("run_id", metavar="RUN", nargs="?", help="id of the run (default: list the last ten)")
    parser.add_argument(
        "--wait", action="store_true", help="follow the run until it ends; Ctrl-C leaves it running"
    )
    add_cluster(parser)
    add_connection(parser)


def run(given: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    with connect(given) as client:
        if not given.run_id:
            for each in client.list_runs(sort_by="created_at desc").runs or []:
                state = each.state or "PENDING"
                print(f"{each.run_id}  {each.created_at:%Y-%m-%d %H:%M}  {state:9}  {each.display_name}")
            return 0
        if given.wait:
            return follow(client, given.run_id)
        found = client.get_run(given.run_id)
        Console().print(stage_table(stage_states(client, found)))
        print(outcome(found), client.page(found.run_id), sep="\n")
        return exit_code(found)
