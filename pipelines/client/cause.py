"""Finds out why a run failed or does not progress, as one line that names the stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from kfp_server_api.models import V2beta1Run
from kubernetes.client import CoreV1Api

from maskcast.runner.pod_status import is_queued, waiting_reason
from pipelines.client.connection import Client
from pipelines.client.pods import RunPods, StagePod, error_line, executors, failure_reason, is_loop
from pipelines.client.stage_logs import StageLogs
from pipelines.client.stages import StageState, run_state, stage_states, task_nodes
from pipelines.pod_metadata import QUEUE_LABEL

QUEUED = "admission by its queue"
PATIENCE = timedelta(seconds=30)
"""Waits shorter than this are a normal start of a pod, and not reported."""


@dataclass(frozen=True)
class Waiting:
    """What a stage waits for, and since when."""

    why: str
    since: datetime
    in_queue: bool
    """Whether it will start by itself, once its queue admits it."""
    of_queue: bool
    """Whether its queue may have held it back for a part of the time."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment.

    Attributes:
        run: the run, from the server.
        stages: state of each stage, in the order of the pipeline.
        pods: pods that still exist, the oldest first.
        last: the last pod of each task, including drivers.
        waiting: what tasks wait for.
    """

    run: V2beta1Run
    stages: Sequence[StageState]
    pods: Sequence[StagePod]
    last: Mapping[str, StagePod]
    waiting: Mapping[str, Waiting]

    @property
    def names(self) -> dict[str, str]:
        """Names of the stages, by task."""
        return {each.task: each.name for each in self.stages}


def snapshot(run: V2beta1Run, names: Mapping[str, str], reach: RunPods) -> Snapshot:
    """Returns the state of a run; pods are queried if possible."""
    pods = reach.pods()
    waiting: dict[str, Waiting] = {}
    for each in _last_attempts(pods):
        if each.pod.status.phase != "Pending":
            continue
        why = QUEUED if is_queued(each.pod) else waiting_reason(each.pod)
        since = each.pod.metadata.creation_timestamp
        if why is not None and datetime.now(UTC) - since >= PATIENCE:
            of_queue = QUEUE_LABEL in (each.pod.metadata.labels or {})
            # Of the items of a loop, the one that has waited longest.
            waiting.setdefault(each.loop or each.task, Waiting(why, since, why is QUEUED, of_queue))
    return Snapshot(run, stage_states(run, names), pods, {each.task: each for each in pods}, waiting)


def cause(client: Client, at: Snapshot, api: CoreV1Api | None) -> str | None:
    """Returns why a run failed, e.g. ``train_masker: exceeded its timeout_s``, or None if it did not fail.

    The reason is taken from the stage's pod, else from its log, from any source. If both are lost, the line says
    so.

    Raises:
        MaskcastError: Kubeflow is unreachable.
    """
    run, names = at.run, at.names
    if run_state(run) != "FAILED":
        return None
    logs = StageLogs(client, run, at.pods, api)
    for stage in at.stages:
        if stage.state == "FAILED":
            return f"{stage.name}: {_of_stage(logs, stage.task)}"
    failed = {node.display_name for node in task_nodes(run) if node.state == "FAILED"}
    for task in ["root", *names]:
        if f"{task}-driver" in failed:
            what = names.get(task, "the run")
            return f"{what}: kfp's driver failed: {_of_driver(logs, task)}"
    return (run.error and run.error.message) or None


def _of_stage(logs: StageLogs, task: str) -> str:
    if is_loop(task):
        return _of_loop(logs, task)
    pods = executors(logs.pods, task)
    texts = logs.of(task)
    text = texts[-1].text if texts else None
    if pods and (why := failure_reason(pods[-1].pod, text)):
        return why
    if text is not None:
        return error_line(text) or "no error in its log"
    driver = logs.of_driver(task)
    if driver is not None and (why := error_line(driver)):
        return f"kfp's driver failed: {why}"
    return "its pod was deleted, and its log is lost"


def _of_loop(logs: StageLogs, loop: str) -> str:
    for each in _last_attempts(logs.pods):
        if loop in (each.loop, each.task) and (why := failure_reason(each.pod, logs.of_pod(each))):
            return f"{each.task.replace('-', '_')} in pod {each.name}: {why}"
    return "one of its tasks failed, whose pod was deleted; Kubeflow's page of the run shows which"


def _last_attempts(pods: Sequence[StagePod]) -> list[StagePod]:
    """Returns the newest pod of each task, in a loop of each task and item, the oldest first."""
    newest = {(each.task, each.item): each for each in pods}
    return [each for each in pods if newest[each.task, each.item] is each]


def _of_driver(logs: StageLogs, task: str) -> str:
    text = logs.of_driver(task)
    pod = next((each for each in reversed(logs.pods) if each.driver and each.task == task), None)
    if pod and (why := failure_reason(pod.pod, text)):
        return why
    return (text and error_line(text)) or "its pod was deleted, and its log is lost; see the pods of ml-pipeline"
