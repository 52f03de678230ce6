"""Shows the stages of a run and why it failed, or lists the last runs of the namespace.

Exits with 1 when the run failed or was cancelled.
"""

import argparse

from rich.console import Console

from maskcast.report.tables import printed
from pipelines.client.cause import Cluster, snapshot
from pipelines.client.connection import add_connection, connect
from pipelines.client.scores import Scores
from pipelines.client.stages import run_state, task_names
from pipelines.client.watch import exit_code, outcome, stage_table
from pipelines.options import add_cluster


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("run_id", metavar="RUN", nargs="?", help="id of the run (default: list the last ten)")
    add_cluster(parser)
    add_connection(parser)


def run(given: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    with connect(given) as client:
        if not given.run_id:
            runs = client.list_runs(sort_by="created_at desc").runs or []
            rows = [
                [each.run_id, f"{each.created_at:%Y-%m-%d %H:%M}", run_state(each), each.display_name]
                for each in runs
            ]
            print(printed(["run", "created (UTC)", "state", "name"], rows))
            return 0
        found = client.get_run(given.run_id)
        names, cluster = task_names(client, found), Cluster.of(client, found)
        at, console = snapshot(found, names, cluster), Console()
        console.print(stage_table(at, Scores(given.run_id).by_stage(), console.width))
        print(outcome(client, at.run, names, cluster), client.page(given.run_id), sep="\n")
        return exit_code(run_state(at.run))
