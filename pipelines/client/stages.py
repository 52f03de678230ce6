"""The stages of a run and their states, from Kubeflow's API."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from graphlib import TopologicalSorter
from typing import Any

from kfp_server_api.models import V2beta1PipelineTaskDetail, V2beta1Run

from maskcast.errors import MaskcastError
from pipelines.client.connection import Client

THE_RUN = "the run"
"""Name in messages of what is of no stage."""
ENDED = ("SUCCEEDED", "FAILED", "CANCELED", "SKIPPED")


@dataclass(frozen=True)
class StageState:
    """The state of a stage."""

    name: str
    """Name of the stage in the pipeline."""
    task: str
    """kfp's name of the task."""
    state: str
    """State in kfp's spelling: PENDING, RUNNING, SUCCEEDED, FAILED, ..., or CACHED for outputs of another run."""
    took: timedelta | None = None
    """Time so far, or in total; None if it did not run."""


def stage_states(run: V2beta1Run, names: Mapping[str, str]) -> list[StageState]:
    """Returns the stages of a run in the order of ``names`` (see `task_names`)."""
    # Besides a node per task, the server lists drivers, executors and, as `name(1)`, further attempts.
    ordered = sorted(task_nodes(run), key=_started)
    nodes = {re.sub(r"\(\d+\)$", "", node.display_name or ""): node for node in ordered}
    return [_stage(run, task, name, nodes) for task, name in names.items()]


def task_nodes(run: V2beta1Run) -> list[V2beta1PipelineTaskDetail]:
    """Returns the server's tasks of a run, which are Argo's nodes: several per stage."""
    return (run.run_details and run.run_details.task_details) or []


def driver_failed(run: V2beta1Run, task: str) -> bool:
    """Whether kfp's driver of a task, or of the run (`root`), failed."""
    return any(node.display_name == f"{task}-driver" and node.state == "FAILED" for node in task_nodes(run))


def run_state(run: V2beta1Run) -> str:
    """Returns the state of a run. A cancelled run ends as FAILED on the server, but its history shows it."""
    states = [each.state for each in run.state_history or [] if each.state]
    while states and states[-1] == "FAILED":
        states.pop()
    cancelled = run.state == "FAILED" and states and states[-1] == "CANCELING"
    return "CANCELED" if cancelled else run.state or "PENDING"


def run_took(run: V2beta1Run) -> timedelta | None:
    """Returns the duration of a run so far, or in total."""
    return _between(run.created_at, run.finished_at)


def task_names(client: Client, run: V2beta1Run) -> dict[str, str]:
    """Returns the names of stages by task, each task after its dependencies.

    Raises:
        MaskcastError: if the server does not answer, or has not stored the pipeline.
    """
    spec = stored_spec(client, run)
    spec = spec.get("pipeline_spec", spec)  # Kubernetes settings are stored beside it
    if "root" not in spec:
        page = client.page(run.run_id)
        raise MaskcastError(
            f"Kubeflow has not stored the pipeline of this run: its stages are unknown; see {page}"
        )
    tasks: Mapping[str, Any] = spec["root"]["dag"]["tasks"]
    needed = {task: entry.get("dependentTasks", ()) for task, entry in tasks.items()}
    # kfp names the second task of a stage `train-masker-2`; its display name is the stage's name in the pipeline.
    return {
        task: tasks[task]["taskInfo"]["name"].replace(" ", "_")
        for task in TopologicalSorter(needed).static_order()
    }


def stored_spec(client: Client, run: V2beta1Run) -> Mapping[str, Any]:
    """Returns what Kubeflow stored of a run's pipeline: its IR, or a mapping of that and its Kubernetes settings.

    It is empty if Kubeflow has stored none.

    Raises:
        MaskcastError: if the server does not answer.
    """
    spec: Mapping[str, Any] | None = run.pipeline_spec
    if reference := run.pipeline_version_reference:
        spec = client.get_pipeline_version(reference.pipeline_id, reference.pipeline_version_id).pipeline_spec
    return spec or {}


def format_duration(took: timedelta | None) -> str:
    """Returns a duration as h:mm:ss; empty for None."""
    return str(timedelta(seconds=max(0, round(took.total_seconds())))) if took is not None else ""


def _stage(run: V2beta1Run, task: str, name: str, nodes: Mapping[str, V2beta1PipelineTaskDetail]) -> StageState:
    node, driver = nodes.get(task), nodes.get(f"{task}-driver")
    if driver is not None and driver.state == "FAILED" and (node is None or node.state is None):
        node = driver  # the pod could not even be created
    state = (node and node.state) or ("SKIPPED" if run.state in ENDED else "PENDING")
    if node is None or state not in ("RUNNING", *ENDED) or state == "SKIPPED":
        return StageState(name, task, state)
    if state == "SUCCEEDED" and node.start_time == node.end_time:
        return StageState(name, task, "CACHED")  # Argo needs seconds to run anything
    if state == "FAILED" and run_state(run) == "CANCELED":
        state = "CANCELED"
    end = node.end_time
    if state in ENDED and not _comes_after(end, node.start_time):
        # After a retry, nodes of earlier successful tasks have no end time; their history has it.
        end = max((each.update_time for each in node.state_history or [] if each.state == state), default=None)
        if end is None:
            return StageState(name, task, state)
    return StageState(name, task, state, _between(node.start_time, end))


def _started(node: V2beta1PipelineTaskDetail) -> float:
    return node.start_time.timestamp() if node.start_time else 0.0


def _comes_after(end: datetime | None, start: datetime | None) -> bool:
    # The server gives unfinished nodes an end time at the start of its calendar.
    return end is not None and start is not None and end > start


def _between(start: datetime | None, end: datetime | None) -> timedelta | None:
    if start is None:
        return None
    return (end if end is not None and _comes_after(end, start) else datetime.now(UTC)) - start
