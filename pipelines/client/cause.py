"""Why a run failed or does not go on, in one line that names the stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from kfp_server_api.models import V2beta1Run
from kubernetes.client import CoreV1Api

from maskcast.errors import MaskcastError
from maskcast.runner.waiting import is_queued, waits_for
from pipelines.client import kube
from pipelines.client.connection import Client
from pipelines.client.pods import StagePod, error_line, executors, pods_of, why_failed
from pipelines.client.stage_logs import StageLogs
from pipelines.client.stages import StageState, run_state, stage_states, task_nodes

QUEUED = "its turn in the queue"
PATIENCE = timedelta(seconds=30)
"""A pod that waits for less is only starting."""


@dataclass(frozen=True)
class Waiting:
    """What a stage waits for."""

    why: str
    since: datetime
    in_queue: bool
    """Whether it comes by itself, in its turn."""


@dataclass(frozen=True)
class Cluster:
    """The Kubernetes side of a run, where it can be asked.

    Attributes:
        api: None without a kubeconfig.
        namespace: of the run.
    """

    api: CoreV1Api | None
    namespace: str

    @classmethod
    def of(cls, client: Client, run: V2beta1Run) -> "Cluster":
        """Returns the way to the pods of a run; the namespace is asked from the run."""
        try:
            return cls(CoreV1Api(kube.connect()), client.namespace_of(run))
        except MaskcastError:
            return cls(None, client.namespace_of(run))

    def pods(self, run_id: str) -> list[StagePod]:
        """Returns the pods of a run; none where the API cannot be asked."""
        if self.api is None:
            return []
        try:
            return pods_of(self.api, self.namespace, run_id)
        except MaskcastError:
            return []


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment.

    Attributes:
        run: as the server tells.
        stages: how each stands, in the order of the pipeline.
        pods: the last pod of each task, drivers included.
        waiting: what tasks wait for.
    """

    run: V2beta1Run
    stages: Sequence[StageState]
    pods: Mapping[str, StagePod] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)


def snapshot(run: V2beta1Run, names: Mapping[str, str], cluster: Cluster) -> Snapshot:
    """Returns how a run stands; its pods are asked, where they can be."""
    pods = cluster.pods(run.run_id)
    last = {each.task: each for each in pods}
    waiting = {}
    for task, each in last.items():
        if each.pod.status.phase != "Pending":
            continue
        why = QUEUED if is_queued(each.pod) else waits_for(each.pod)
        since = each.pod.metadata.creation_timestamp
        if why is not None and datetime.now(UTC) - since >= PATIENCE:
            waiting[task] = Waiting(why, since, why is QUEUED)
    return Snapshot(run, stage_states(run, names), last, waiting)


def cause(client: Client, run: V2beta1Run, names: Mapping[str, str], cluster: Cluster) -> str | None:
    """Returns why a run failed, e.g. ``train_masker: out of memory: asks for 8Gi``; None where it did not fail.

    The stage's pod is asked first, then its log, wherever that is. Where all that is gone the line says so.

    Raises:
        MaskcastError: when Kubeflow does not tell.
    """
    if run_state(run) != "FAILED":
        return None
    logs = StageLogs(client, run, cluster.pods(run.run_id), cluster.api)
    for stage in stage_states(run, names):
        if stage.state == "FAILED":
            return f"{stage.name}: {_of_stage(logs, stage.task)}"
    failed = {node.display_name for node in task_nodes(run) if node.state == "FAILED"}
    for task in ["root", *names]:
        if f"{task}-driver" in failed:
            what = names.get(task, "the run")
            return f"{what}: kfp's driver failed: {_of_driver(logs, task)}"
    return (run.error and run.error.message) or None


def _of_stage(logs: StageLogs, task: str) -> str:
    pods = executors(logs.pods, task)
    texts = logs.of(task)
    text = texts[-1].text if texts else None
    if pods and (why := why_failed(pods[-1].pod, text)):
        return why
    if text is not None:
        return error_line(text) or "its log does not say why"
    driver = logs.of_driver(task)
    if driver is not None and (why := error_line(driver)):
        return f"kfp's driver failed: {why}"
    return "its pod is gone, and with it what it said"


def _of_driver(logs: StageLogs, task: str) -> str:
    text = logs.of_driver(task)
    pod = next((each for each in reversed(logs.pods) if each.driver and each.task == task), None)
    if pod and (why := why_failed(pod.pod, text)):
        return why
    return (text and error_line(text)) or "its pod is gone, and with it what it said; see the pods of ml-pipeline"
