"""The pods of a run: the stage of each, what it waits for, and why it failed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp_server_api.models import V2beta1Run
from kubernetes.client import CoreV1Api, CoreV1Event, V1Pod

from maskcast.errors import MaskcastError
from maskcast.runner.pod_status import waiting_reason
from pipelines.client import kube
from pipelines.client.connection import Client

NODE_NAME = "workflows.argoproj.io/node-name"
"""<workflow>.root.<task>.executor or <workflow>.root.<task>-driver; (n) behind a name says which attempt."""
MAIN = "main"
EXECUTORS = ("retry-system-container-impl", "system-container-impl")
"""kfp's templates of the pods in which tasks run: of those with a retry policy, and of others."""


@dataclass(frozen=True)
class StagePod:
    """A pod of a run."""

    task: str
    """kfp's name of the task; `root` for the run's own driver."""
    attempt: int
    """Counts from 0."""
    driver: bool
    """Whether kfp only prepares the task in this pod."""
    pod: V1Pod
    loop: str | None = None
    """kfp's name of the loop that the task is in (see `is_loop`); None outside of loops."""
    item: str = ""
    """Argo's nodes between the root and the task, which differ between the items of a loop."""

    @property
    def name(self) -> str:
        """Name of the pod."""
        return str(self.pod.metadata.name)


@dataclass
class RunPods:
    """Access to the pods of a run, if available.

    Attributes:
        run_id: id of the run.
        namespace: namespace of the run.
        api: None without a kubeconfig.
        hidden: why the pods could not be listed last time, with the remedy; None if they could.
    """

    run_id: str
    namespace: str
    api: CoreV1Api | None
    hidden: str | None = None

    @classmethod
    def of(cls, client: Client, run: V2beta1Run) -> "RunPods":
        """Returns the access to the pods of a run, whose namespace is queried."""
        namespace = client.namespace_of(run)
        try:
            return cls(run.run_id, namespace, CoreV1Api(kube.connect()))
        except MaskcastError as error:
            return cls(run.run_id, namespace, None, str(error))

    def pods(self) -> list[StagePod]:
        """Returns the pods that still exist, the oldest first; empty if they cannot be listed (see `hidden`)."""
        if self.api is None:
            return []
        label = f"pipeline/runid={self.run_id}"
        try:
            found = kube.call_api(self.api.list_namespaced_pod, self.namespace, label_selector=label)
        except MaskcastError as error:
            self.hidden = str(error)
            return []
        self.hidden = None
        return by_age(found.items if found else [])

    def warnings(self, name: str) -> list[CoreV1Event]:
        """Returns the events of type Warning of the object with a name; empty if they cannot be listed."""
        return [] if self.api is None else kube.list_warnings(self.api, self.namespace, name)


def by_age(pods: Iterable[V1Pod]) -> list[StagePod]:
    """Returns the pods of stages and of kfp's drivers, the oldest first."""
    ordered = sorted(pods, key=lambda pod: (pod.metadata.creation_timestamp, pod.metadata.name))
    return [each for each in map(_stage_pod, ordered) if each is not None]


def is_loop(task: str) -> bool:
    """Whether a task is a loop, by kfp's name of it; its pods are those of other tasks."""
    return task.startswith("for-loop-")


def executors(pods: Iterable[StagePod], task: str) -> list[StagePod]:
    """Returns the pods in which a task ran, one per attempt, in the order of attempts.

    A deleted pod is recreated under the same attempt; only the newest is returned.
    """
    found = {each.attempt: each for each in pods if each.task == task and not each.driver}
    return [found[attempt] for attempt in sorted(found)]


def driver_name(workflow: str, task: str) -> str:
    """Returns Argo's name of the pod in which kfp prepares a task, or (`root`) the whole run."""
    inside = "" if task == "root" else ".root(0)"
    template = "system-dag" if task == "root" else "system-container"
    return f"{workflow}-{template}-driver-{_fnv32a(f'{workflow}(0){inside}.{task}-driver(0)')}"


def executor_name(workflow: str, template: str, task: str, attempt: int = 0) -> str:
    """Returns Argo's name of a task's pod: the workflow, the template and a hash of the node's name.

    Names of nodes are those of kfp 2.17.

    Args:
        workflow: name of Argo's Workflow.
        template: one of `executor_templates`.
        task: kfp's name of the task.
        attempt: counts from 0.
    """
    return f"{workflow}-{template}-{_fnv32a(f'{workflow}(0).root(0).{task}(0).executor({attempt})')}"


def executor_templates(spec: Mapping[str, Any]) -> list[str]:
    """Returns kfp's names of the templates of which the pods of a pipeline's tasks are.

    Args:
        spec: what Kubeflow stored of the pipeline (see `stored_spec`).
    """
    platform = spec.get("platform_spec") or {}
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    prefixes = set()
    for executor in kubernetes.get("deploymentSpec", {}).get("executors", {}).values():
        # Pods with labels or annotations have templates that are named after the numbers of these.
        metadata = executor.get("podMetadata")
        numbers = [len(metadata.get(key) or {}) for key in ("annotations", "labels")] if metadata else []
        prefixes.add("".join(["metadata-", *(f"{number}-" for number in numbers)] if numbers else []))
    return [f"{prefix}{name}" for prefix in sorted(prefixes or {""}) for name in EXECUTORS]


def cached_run_id(pods: Iterable[StagePod], task: str, run_id: str) -> str | None:
    """Returns the id of the run whose cached outputs a task used, from the arguments of pods that read them."""
    for each in pods:
        words = [word for box in each.pod.spec.containers for word in [*(box.command or []), *(box.args or [])]]
        for other_id in re.findall(rf"/([0-9a-f]{{8}}-[0-9a-f-]{{27}})/{re.escape(task)}/", " ".join(words)):
            if other_id != run_id:
                return str(other_id)
    return None


def failure_reason(pod: V1Pod, log: str | None = None) -> str | None:
    """Returns a short reason why a pod failed, or None if it did not fail.

    Args:
        pod: the pod.
        log: the pod's output, or None if unknown.
    """
    status = pod.status
    if status.phase != "Failed":
        return None
    if status.reason == "Evicted":
        return f"evicted: {status.message}"
    if status.reason == "DeadlineExceeded":
        return "exceeded its timeout_s"
    statuses = [*(status.init_container_statuses or []), *(status.container_statuses or [])]
    ended = {each.name: each.state.terminated for each in statuses if each.state and each.state.terminated}
    main = ended.get(MAIN) or next((each for each in ended.values() if each.exit_code), None)
    if main is not None and main.reason == "OOMKilled":
        return f"out of memory: {_memory_limit(pod)}"
    if log is not None and (error := error_line(log)):
        return error
    if main is None:
        return waiting_reason(pod) or str(status.message or status.reason or "ended without a message")
    if main.exit_code == 75:
        return "stopped by its time limit or a signal, with a checkpoint; run it again to resume (exit code 75)"
    if main.exit_code in (137, 143):
        return f"killed by a signal (exit code {main.exit_code})"
    return f"exit code {main.exit_code}" + (f": {main.message.strip()}" if main.message else "")


def error_line(log: str) -> str | None:
    """Returns the error in a log: the last line that starts with `error:` or ends a traceback."""
    errors = re.findall(r"^(?:error|[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)): (.+)$", log, re.MULTILINE)
    if errors:
        return str(errors[-1]).strip()
    # kfp's driver writes klog: F1126 08:59:45.123456   15 main.go:79] what went wrong
    fatal = re.findall(r"^F\d{4} [\d:.]+ +\d+ \S+\] (.+)$", log, re.MULTILINE)
    return str(fatal[-1]).strip() if fatal else None


def _stage_pod(pod: V1Pod) -> StagePod | None:
    path = (pod.metadata.annotations or {}).get(NODE_NAME, "").split(".")
    last, attempt = _attempt(path[-1])
    if last.endswith("-driver"):
        return StagePod(last.removesuffix("-driver"), attempt, True, pod, _loop(path[2:-1]), ".".join(path[2:-1]))
    if last == "executor" and len(path) > 1:
        return StagePod(_attempt(path[-2])[0], attempt, False, pod, _loop(path[2:-2]), ".".join(path[2:-2]))
    return None


def _loop(nodes: Sequence[str]) -> str | None:
    """Returns the outermost of the nodes between the root and a task."""
    return _attempt(nodes[0])[0] if nodes else None


def _attempt(node: str) -> tuple[str, int]:
    match = re.fullmatch(r"(.*?)(?:\((\d+)\))?", node)
    assert match
    return match[1], int(match[2] or 0)


def _memory_limit(pod: V1Pod) -> str:
    limits: Mapping[str, Any] = next(
        ((each.resources and each.resources.limits) or {} for each in pod.spec.containers if each.name == MAIN), {}
    )
    return f"its limit is {limits['memory']}" if "memory" in limits else "it has no limit but the node's memory"


def _fnv32a(text: str) -> int:
    """Returns the 32-bit FNV-1a hash, which Argo uses for names of nodes."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value
