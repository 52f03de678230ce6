"""Shows the stages of a run and why it failed, or lists the last runs of the namespace.

Exits with 1 if the run failed or was cancelled.
"""

import argparse

from rich.console import Console

from maskcast.report.tables import format_table
from pipelines.client.cause import snapshot
from pipelines.client.connection import add_run, connect
from pipelines.client.pods import RunPods
from pipelines.client.scores import Scores
from pipelines.client.stages import run_state, task_names
from pipelines.client.watch import exit_code, not_visible, outcome, stage_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_run(parser, optional="list the last ten")


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    with connect(args) as client:
        if not args.run_id:
            runs = client.list_runs(sort_by="created_at desc").runs or []
            rows = [
                [each.run_id, f"{each.created_at:%Y-%m-%d %H:%M}", run_state(each), each.display_name]
                for each in runs
            ]
            print(format_table(["run", "created (UTC)", "state", "name"], rows))
            return 0
        found = client.get_run(args.run_id)
        pods, console = RunPods.of(client, found), Console()
        at = snapshot(found, task_names(client, found), pods)
        console.print(stage_table(at, Scores(args.run_id).by_stage(), console.width))
        if at.hidden:
            print(not_visible(at.hidden))
        print(outcome(client, at, pods.api), client.page(args.run_id), sep="\n")
        return exit_code(run_state(at.run))
