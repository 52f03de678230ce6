"""Follows a run until it ends: one live table on a terminal, a line per change elsewhere.

A row shows the state of a stage: its pod and attempt, its last step and score (if MLFLOW_TRACKING_URI is set), the
time so far, and what it waits for. Ctrl-C stops watching, not the run. If a stage has waited 15 minutes for
something other than its queue (an image, a node, a secret), watching ends with exit code 1; the run continues.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from kfp_server_api.models import V2beta1Run
from kubernetes.client import CoreV1Api
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from maskcast.errors import MaskcastError
from maskcast.progress import say
from pipelines.client.cause import Snapshot, cause, snapshot
from pipelines.client.connection import Client, add_run, connect
from pipelines.client.pods import RunPods
from pipelines.client.scores import Scores
from pipelines.client.stages import ENDED, StageState, format_duration, run_state, run_took, task_names

POLL_S = 5.0
GIVE_UP = timedelta(minutes=15)
WIDE = 120  # columns: minimum width to show pod names
STYLES = {"SUCCEEDED": "green", "CACHED": "green", "RUNNING": "cyan", "FAILED": "bold red", "CANCELED": "yellow"}

Show = Callable[[Snapshot], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    with connect(args) as client:
        return follow(client, args.run_id)


def follow(client: Client, run_id: str) -> int:
    """Shows the progress of a run until it ends.

    Returns:
        The exit code: 0 if the run succeeded, 1 if it failed, was cancelled or is stuck, 130 after Ctrl-C.

    Raises:
        MaskcastError: the server is unreachable for longer than a restart takes.
    """
    run = client.get_run(run_id)
    names, pods, scores = task_names(client, run), RunPods.of(client, run), Scores(run_id)
    console = Console(stderr=True)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:

                def draw(at: Snapshot) -> None:
                    live.update(stage_table(at, scores.by_stage(), console.width), refresh=True)

                last = _wait(client, run, names, pods, draw)
        else:
            last = _wait(client, run, names, pods, _changes())
    except MaskcastError as error:
        raise MaskcastError(f"{error}. The run continues: {client.command('watch', run_id)}") from None
    except KeyboardInterrupt:
        say(f"stopped watching; the run continues. To cancel it: {client.command('cancel', run_id)}")
        return 130
    if run_state(last.run) not in ENDED:
        cancel = client.command("cancel", run_id)
        say(f"stopped watching after {format_duration(GIVE_UP)}: {_waits(last)}; to cancel the run: {cancel}")
        return 1
    say(outcome(client, last, pods.api))
    return exit_code(run_state(last.run))


def stage_table(at: Snapshot, scores: Mapping[str, str], width: int) -> Table:
    """Returns a table of the stages for rich, at most ``width`` columns wide."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(5 if width >= WIDE else 4):
        table.add_column(no_wrap=column < 3, overflow="ellipsis")
    for each in at.stages:
        pod, waiting = at.last.get(each.task), at.waiting.get(each.task)
        notes = [f"attempt {pod.attempt + 1}"] if pod and pod.attempt else []
        notes += [f"waits: {waiting.why}"] if waiting else [scores.get(each.name, "")]
        cells = [Text(each.name), Text(each.state, STYLES.get(each.state, "")), Text(format_duration(each.took))]
        cells += [Text(pod.name if pod and each.state == "RUNNING" else "")] if width >= WIDE else []
        table.add_row(*cells, Text(", ".join(filter(None, notes)), "yellow" if waiting else ""))
    return table


def outcome(client: Client, at: Snapshot, api: CoreV1Api | None) -> str:
    """Returns one line with the state of a run; for a failed run also the reason, and the command for a log.

    Raises:
        MaskcastError: if the server does not answer.
    """
    line = f"{at.run.display_name}: {run_state(at.run)} {format_duration(run_took(at.run))}".rstrip()
    if found := cause(client, at, api):
        log = f" Log: {client.command('logs', at.run.run_id)}" if found.has_log else ""
        return f"{line}; {found.why}.{log}"
    return line


def not_visible(hidden: str) -> str:
    """Returns the line that says why nothing is known of the pods of a run."""
    return f"pods are not visible ({hidden}): waiting pods and causes are not shown"


def exit_code(state: str) -> int:
    """Returns 1 for the state of a run that ended without success, else 0."""
    return int(state in ENDED and state != "SUCCEEDED")


def _wait(client: Client, run: V2beta1Run, names: Mapping[str, str], pods: RunPods, show: Show) -> Snapshot:
    """Shows the state of a run repeatedly, until the run ends or is stuck."""
    outside_queue: dict[str, datetime] = {}
    queued: set[str] = set()
    was_hidden = False
    while True:
        at, now = snapshot(run, names, pods), datetime.now(UTC)
        if at.hidden and not was_hidden:  # its text may differ each time
            say(not_visible(at.hidden))
        was_hidden = at.hidden is not None
        show(at)
        queued |= {task for task, each in at.waiting.items() if each.in_queue}
        outside_queue = {  # pods do not state when their queue admitted them
            task: outside_queue.get(task, now if each.of_queue or task in queued else each.since)
            for task, each in at.waiting.items()
            if not each.in_queue
        }
        stuck = any(now - since > GIVE_UP for since in outside_queue.values())
        if run_state(at.run) in ENDED or stuck:
            return at
        time.sleep(POLL_S)
        run = client.get_run(run.run_id)


def _waits(at: Snapshot) -> str:
    names = at.names
    return ", ".join(f"{names.get(task, task)} waits: {each.why}" for task, each in at.waiting.items())


def _changes() -> Show:
    printed: dict[str, str] = {}

    def show(at: Snapshot) -> None:
        for each in at.stages:
            waiting, pod = at.waiting.get(each.task), at.last.get(each.task)
            line = _line(each, pod.attempt if pod else 0, waiting.why if waiting else None)
            if line and printed.get(each.name) != line[0]:
                printed[each.name] = line[0]
                say(" ".join(line).rstrip())

    return show


def _line(stage: StageState, attempt: int, waits: str | None) -> tuple[str, str] | None:
    """Returns the text whose changes are printed, and the duration to print with it."""
    if waits:
        return f"{stage.name}: waits: {waits}", ""
    if stage.state == "PENDING":
        return None
    again = f" (attempt {attempt + 1})" if attempt and stage.state == "RUNNING" else ""
    return f"{stage.name}: {stage.state}{again}", format_duration(stage.took) if stage.state in ENDED else ""
