"""Follows a run: the state of each stage, until the run ends."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter
from typing import Any

from kfp_server_api.models import V2beta1PipelineTaskDetail, V2beta1Run
from rich.console import Console
from rich.live import Live
from rich.table import Table

from maskcast.errors import MaskcastError
from maskcast.progress import say
from pipelines.client.connection import Client

POLL_S = 5.0
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")
STYLES = {"SUCCEEDED": "green", "RUNNING": "cyan", "FAILED": "bold red", "CANCELED": "yellow"}


@dataclass(frozen=True)
class StageState:
    """A stage of a run."""

    name: str
    """What it goes by in the pipeline."""
    state: str
    """As kfp spells it: PENDING, RUNNING, SUCCEEDED, FAILED, ..."""
    took: timedelta | None
    """So far, or in all; None before it starts."""


def stage_states(client: Client, run: V2beta1Run) -> list[StageState]:
    """Returns the stages of a run in the order of the pipeline.

    Raises:
        MaskcastError: when the server does not tell.
    """
    return _states(run, task_names(client, run))


def stage_table(states: list[StageState]) -> Table:
    """Returns the states as rich draws them."""
    table = Table.grid(padding=(0, 2))
    for each in states:
        style = STYLES.get(each.state, "")
        table.add_row(each.name, f"[{style}]{each.state}[/]" if style else each.state, _spell(each.took))
    return table


def follow(client: Client, run_id: str) -> int:
    """Shows the stages of a run as they go on: a live table on a terminal, a line per change elsewhere.

    Returns:
        The exit code: 0 when the run succeeded, 1 when it failed or was cancelled, 130 after Ctrl-C, which ends
        the waiting and not the run.

    Raises:
        MaskcastError: when the server is lost for longer than it takes to restart.
    """
    run = client.get_run(run_id)
    names = task_names(client, run)
    console = Console(stderr=True)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                run = _wait(client, run, names, lambda states: live.update(stage_table(states), refresh=True))
        else:
            run = _wait(client, run, names, _changes())
    except MaskcastError as error:
        raise MaskcastError(f"{error}. The run goes on: maskcast pipeline status {run_id} --wait") from None
    except KeyboardInterrupt:
        say(f"no longer waiting; the run goes on. To stop it: maskcast pipeline cancel {run_id}")
        return 130
    say(outcome(run))
    return exit_code(run)


def outcome(run: V2beta1Run) -> str:
    """Returns one line: how a run stands, and where to read why it failed."""
    took = _took(run.created_at, run.finished_at)
    line = f"{run.display_name}: {run.state or 'PENDING'} {_spell(took)}".rstrip()
    if run.error and run.error.message:
        line += f", {run.error.message}"
    return f"{line}; why: maskcast pipeline logs {run.run_id}" if run.state == "FAILED" else line


def exit_code(run: V2beta1Run) -> int:
    """Returns 1 for a run that ended without success, else 0."""
    return int(run.state in ENDED and run.state != "SUCCEEDED")


def _wait(
    client: Client, run: V2beta1Run, names: Mapping[str, str], show: Callable[[list[StageState]], None]
) -> V2beta1Run:
    show(_states(run, names))
    while run.state not in ENDED:
        time.sleep(POLL_S)
        run = client.get_run(run.run_id)
        show(_states(run, names))
    return run


def _changes() -> Callable[[list[StageState]], None]:
    said: dict[str, str] = {}

    def show(states: list[StageState]) -> None:
        for each in states:
            if said.setdefault(each.name, "PENDING") != each.state:
                said[each.name] = each.state
                say(f"{each.name}: {each.state} {_spell(each.took) if each.state in ENDED else ''}".rstrip())

    return show


def task_names(client: Client, run: V2beta1Run) -> dict[str, str]:
    """Returns the names that stages go by, by task of the run; each task after those it depends on.

    Raises:
        MaskcastError: when the server does not tell.
    """
    spec = run.pipeline_spec
    if reference := run.pipeline_version_reference:
        spec = client.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id).pipeline_spec
    spec = spec.get("pipeline_spec", spec)  # what is said of Kubernetes stands beside it
    tasks: Mapping[str, Any] = spec["root"]["dag"]["tasks"]
    needed = {task: entry.get("dependentTasks", ()) for task, entry in tasks.items()}
    # kfp calls the second task of a stage `train-masker-2`; its display name says what it goes by.
    return {
        task: tasks[task]["taskInfo"]["name"].replace(" ", "_")
        for task in TopologicalSorter(needed).static_order()
    }


def _states(run: V2beta1Run, names: Mapping[str, str]) -> list[StageState]:
    details: list[V2beta1PipelineTaskDetail] = (run.run_details and run.run_details.task_details) or []
    # Beside a node per task the server lists drivers, executors and, as `name(1)`, repeated attempts.
    nodes = {re.sub(r"\(\d+\)$", "", node.display_name or ""): node for node in sorted(details, key=_started)}
    return [_state(task, name, nodes, run.state in ENDED) for task, name in names.items()]


def _state(task: str, name: str, nodes: Mapping[str, V2beta1PipelineTaskDetail], run_ended: bool) -> StageState:
    node, driver = nodes.get(task), nodes.get(f"{task}-driver")
    if node is None and driver is not None and driver.state == "FAILED":
        node = driver  # the pod could not even be described
    state = (node and node.state) or ("SKIPPED" if run_ended else "PENDING")
    took = _took(node.start_time, node.end_time) if node and state != "SKIPPED" else None
    return StageState(name, state, took)


def _started(node: V2beta1PipelineTaskDetail) -> float:
    return node.start_time.timestamp() if node.start_time else 0.0


def _took(start: datetime | None, end: datetime | None) -> timedelta | None:
    if start is None:
        return None
    # What has not ended ends, by the server, at the beginning of its calendar.
    return (end if end and end > start else datetime.now(UTC)) - start


def _spell(took: timedelta | None) -> str:
    return str(timedelta(seconds=max(0, round(took.total_seconds())))) if took else ""
