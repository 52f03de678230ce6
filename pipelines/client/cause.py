"""Finds out why a run failed or does not progress, as one line that names the stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from kfp_server_api.models import V2beta1Run
from kubernetes.client import CoreV1Api, V1Pod

from maskcast.runner.pod_status import PATIENCE, is_queued, slow_start, waiting_reason
from pipelines.client.connection import Client
from pipelines.client.pods import RunPods, StagePod, error_line, executors, failure_reason, is_loop
from pipelines.client.stage_logs import DRIVER_FAILED, StageLogs
from pipelines.client.stages import THE_RUN, StageState, driver_failed, run_state, stage_states
from pipelines.pod_metadata import QUEUE_LABEL

QUEUED = "admission by its queue"


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
class Cause:
    """Why a run failed."""

    why: str
    """E.g. ``train_masker: exceeded its timeout_s``."""
    has_log: bool
    """Whether there is something that `maskcast pipeline logs` could print."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one moment.

    Attributes:
        run: the run, from the server.
        stages: state of each stage, in the order of the pipeline.
        pods: pods that still exist, the oldest first.
        last: the last pod of each task, including drivers.
        waiting: what tasks wait for.
        hidden: why pods could not be listed, so that nothing is known of them; None if they could.
    """

    run: V2beta1Run
    stages: Sequence[StageState]
    pods: Sequence[StagePod]
    last: Mapping[str, StagePod]
    waiting: Mapping[str, Waiting]
    hidden: str | None

    @property
    def names(self) -> dict[str, str]:
        """Names of the stages, by task."""
        return {each.task: each.name for each in self.stages}


def snapshot(run: V2beta1Run, names: Mapping[str, str], reach: RunPods) -> Snapshot:
    """Returns the state of a run; pods are queried if possible."""
    pods = reach.pods()
    waiting: dict[str, Waiting] = {}
    for each in _last_attempts(pods):
        if each.pod.status.phase == "Pending" and (found := _waiting(each.pod, reach)):
            # Of the items of a loop, the one that has waited longest.
            waiting.setdefault(each.loop or each.task, found)
    return Snapshot(run, stage_states(run, names), pods, {each.task: each for each in pods}, waiting, reach.hidden)


def cause(client: Client, at: Snapshot, api: CoreV1Api | None) -> Cause | None:
    """Returns why a run failed, or None if it did not fail.

    The reason is taken from the stage's pod, else from its log, from any source. If both are lost or cannot be
    seen, it says so.

    Raises:
        MaskcastError: Kubeflow is unreachable.
    """
    run, names = at.run, at.names
    if run_state(run) != "FAILED":
        return None
    logs = StageLogs(client, run, at.pods, api, at.hidden)
    for stage in at.stages:
        if stage.state == "FAILED":
            why = _of_stage(logs, stage.task)
            has_log = why is not None and not is_loop(stage.task)  # a loop has none of its own
            return Cause(f"{stage.name}: {why or logs.missing(stage.task)}", has_log)
    for task in ["root", *names]:
        if driver_failed(run, task):
            what, why = names.get(task, THE_RUN), _of_driver(logs, task)
            return Cause(f"{what}: {DRIVER_FAILED}: {why or logs.missing_driver(task)}", has_log=why is not None)
    return Cause(run.error.message, has_log=False) if run.error and run.error.message else None


def _waiting(pod: V1Pod, reach: RunPods) -> Waiting | None:
    """Returns what a pod has waited for, longer than its start normally takes; None for nothing."""
    since: datetime = pod.metadata.creation_timestamp
    why = QUEUED if is_queued(pod) else waiting_reason(pod)
    if why is None:
        if (slow := slow_start(pod, reach.warnings)) is None:
            return None
        why, since = slow
    elif datetime.now(UTC) - since < PATIENCE:
        return None
    return Waiting(why, since, why is QUEUED, QUEUE_LABEL in (pod.metadata.labels or {}))


def _of_stage(logs: StageLogs, task: str) -> str | None:
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
        return f"{DRIVER_FAILED}: {why}"
    return None


def _of_loop(logs: StageLogs, loop: str) -> str:
    for each in _last_attempts(logs.pods):
        if loop in (each.loop, each.task) and (why := failure_reason(each.pod, logs.of_pod(each))):
            return f"{each.task.replace('-', '_')} in pod {each.name}: {why}"
    what = "is not visible" if logs.hidden else "was deleted"
    return f"one of its tasks failed, whose pod {what}; Kubeflow's page of the run shows which"


def _last_attempts(pods: Sequence[StagePod]) -> list[StagePod]:
    """Returns the newest pod of each task, in a loop of each task and item, the oldest first."""
    newest = {(each.task, each.item): each for each in pods}
    return [each for each in pods if newest[each.task, each.item] is each]


def _of_driver(logs: StageLogs, task: str) -> str | None:
    text = logs.of_driver(task)
    pod = next((each for each in reversed(logs.pods) if each.driver and each.task == task), None)
    if pod and (why := failure_reason(pod.pod, text)):
        return why
    return text and (error_line(text) or "no error in its log")
