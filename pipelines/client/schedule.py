"""Runs a pipeline repeatedly, at the times of a cron expression.

Only one run is active at a time, and runs missed while the cluster was down are not repeated. Every run uses the
present version and params: after a change, schedule again. Prints the id of the schedule.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.report.tables import format_table
from pipelines.client.connection import Client, add_connection, connect
from pipelines.client.package import Package, add_package, experiment_id, prepare_submission, upload


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--cron",
        metavar="EXPRESSION",
        help="second minute hour day month weekday, e.g. '0 0 3 * * 1' for Mondays at 3 (UTC unless the "
        "cluster says otherwise)",
    )
    what.add_argument("--list", action="store_true", help="list the schedules of the namespace instead")
    what.add_argument("--delete", metavar="ID", help="delete a schedule instead; its runs are kept")
    parser.add_argument("--name", help="name of the schedule (default: the pipeline's)")
    add_package(parser)
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    if args.list or args.delete:
        with connect(args) as client:
            if args.delete:
                client.delete_recurring_run(args.delete)
                print(f"deleted {args.delete}")
            else:
                _list(client)
        return 0
    if len(args.cron.split()) != 6:
        raise MaskcastError(
            f"--cron {args.cron!r}: use six fields, second minute hour day month weekday; prefix a standard "
            "expression of five fields with 0"
        )
    with prepare_submission(args) as (client, package, kfp_arguments):
        print(_create(client, args, package, kfp_arguments))
    return 0


def _create(client: Client, args: argparse.Namespace, package: Package, kfp_arguments: dict[str, Any]) -> str:
    name = args.name or package.pipeline
    experiment = experiment_id(client, args.experiment)
    for each in _schedules(client, experiment_id=experiment):
        if each.display_name == name:
            raise MaskcastError(
                f"schedule {name!r} already exists in experiment {args.experiment} ({each.recurring_run_id}); "
                "delete it with --delete, or give another --name"
            )
    kfp_arguments |= upload(client, package)
    recurring_run = client.create_recurring_run(
        experiment, name, cron_expression=args.cron, max_concurrency=1, no_catchup=True, **kfp_arguments
    )
    say(f"experiment {args.experiment}, schedule {name}: {args.cron}")
    recurring_run_id: str = recurring_run.recurring_run_id
    return recurring_run_id


def _list(client: Client) -> None:
    rows = []
    for each in _schedules(client, namespace=client.get_user_namespace()):
        schedule = each.trigger and each.trigger.cron_schedule
        cron = schedule.cron if schedule else "periodic"
        rows.append([each.recurring_run_id, each.status or "", cron, each.display_name])
    print(format_table(["schedule", "state", "cron", "name"], rows))


def _schedules(client: Client, **where: str) -> Iterator[Any]:
    """Yields the schedules of an experiment or namespace, which the server returns page by page."""
    page: str | None = ""
    while page is not None:
        answer = client.list_recurring_runs(page_token=page, page_size=100, **where)
        yield from answer.recurring_runs or []
        page = answer.next_page_token or None
