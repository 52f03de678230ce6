"""The output of a stage: from its pod, else from Kubeflow's archive, else from the run's artifacts."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from kfp_server_api.models import V2beta1Run
from kubernetes.client import CoreV1Api

from maskcast.errors import MaskcastError
from maskcast.storage.s3 import open_bucket
from pipelines.client.connection import Client
from pipelines.client.kube import call_api
from pipelines.client.pods import MAIN, StagePod, driver_name, executor_name, executor_templates, executors
from pipelines.client.stages import stored_spec, task_nodes

HEADER = re.compile(
    r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ "  # Go's klog, of kfp's launcher
    r"|time=\S+ level=\w+ msg="  # Argo's executor
    r"|\[KFP Executor [\d-]+ [\d:,]+ \w+\]: "
)

DRIVER_FAILED = "kfp's driver failed"


@dataclass(frozen=True)
class Log:
    """The output of one attempt of a stage.

    Attributes:
        attempt: counts from 0.
        text: the whole output, including kfp's own lines.
        source: where it was found.
    """

    attempt: int
    text: str
    source: str


@dataclass(frozen=True)
class StageLogs:
    """The logs of a run, from any source.

    Attributes:
        client: Kubeflow's API.
        run: the run.
        pods: its pods that still exist.
        api: the Kubernetes API, or None if it is not available.
        hidden: why pods could not be listed (see `RunPods`).
    """

    client: Client
    run: V2beta1Run
    pods: Sequence[StagePod]
    api: CoreV1Api | None
    hidden: str | None
    unread: dict[str, str] = field(default_factory=dict)
    """Why logs of pods that exist could not be read, by name of the pod."""

    def missing(self, task: str) -> str:
        """Returns what to say of a task without a log."""
        for each in reversed(self.pods):
            if each.task == task and each.name in self.unread:
                return f"the log of pod {each.name} cannot be read ({self.unread[each.name]})"
        if self.hidden:
            return "its pod is not visible, and Kubeflow's archive has no log"
        return "its pod was deleted, and its log is lost"

    def missing_driver(self, task: str) -> str:
        """Returns what to say of a task whose driver has no log."""
        return f"{self.missing(task)}; see the pods of ml-pipeline"

    def of(self, task: str) -> list[Log]:
        """Returns the log of each attempt of a task, in order; attempts without a log are left out.

        Raises:
            MaskcastError: if a server does not answer.
        """
        pods = {each.attempt: each for each in executors(self.pods, task)}
        found = [self._of_pod(each, attempt) for attempt, each in pods.items()]
        attempts = max(pods, default=-1) + 1
        if not attempts:  # the pods were deleted: try one attempt after another
            while (log := self._archived(task, attempts)) is not None:
                found.append(log)
                attempts += 1
        logs = [each for each in found if each is not None]
        return logs or list(self._artifacts(task))

    def of_driver(self, task: str) -> str | None:
        """Returns the output of kfp's driver of a task, or of the run (`root`); None if it is lost."""
        pod = next((each for each in reversed(self.pods) if each.driver and each.task == task), None)
        text = self.of_pod(pod) if pod else None
        if text is None and (workflow := workflow_of(self.run)):
            text = self.client.archived_log(self.run.run_id, driver_name(workflow, task))
        return text

    def _of_pod(self, pod: StagePod, attempt: int) -> Log | None:
        text = self.of_pod(pod)
        if text is not None:
            return Log(attempt, text, f"pod {pod.name}")
        return self._archived(pod.task, attempt)

    def of_pod(self, pod: StagePod) -> str | None:
        """Returns the output of a pod from the cluster; None if it is lost, or no container has started."""
        if self.api is None:
            return None
        try:
            answer = call_api(
                self.api.read_namespaced_pod_log,
                pod.name,
                pod.pod.metadata.namespace,
                container=MAIN,
                _preload_content=False,
            )
        except MaskcastError as error:  # for a container that never started, the API answers with status 400
            self.unread[pod.name] = str(error)
            return None
        return None if answer is None else str(answer.data.decode("utf-8", "replace"))

    def _archived(self, task: str, attempt: int) -> Log | None:
        workflow = workflow_of(self.run)
        if workflow is None:
            return None
        for template in self._templates:
            pod = executor_name(workflow, template, task, attempt)
            if (text := self.client.archived_log(self.run.run_id, pod)) is not None:
                return Log(attempt, text, "Kubeflow's archive")
        return None

    @cached_property
    def _templates(self) -> list[str]:
        """Kfp's names of the templates of the run's pods, asked of the server once."""
        return executor_templates(stored_spec(self.client, self.run))

    def _artifacts(self, task: str) -> Iterator[Log]:
        """Yields the artifacts `executor-logs` of a task, if the run's root is a readable bucket."""
        root = self.run.runtime_config and self.run.runtime_config.pipeline_root
        workflow = workflow_of(self.run)
        if not root or not root.startswith("s3://") or workflow is None:
            return
        pipeline = workflow.rpartition("-")[0]
        try:
            with open_bucket(f"{root.rstrip('/')}/{pipeline}/{self.run.run_id}/{task}") as bucket:
                for name in sorted(bucket.items()):
                    match = re.fullmatch(r"[^/]+/executor-logs(?:-(\d+))?", name)
                    content = bucket.read(name) if match else None
                    if match and content is not None:
                        yield Log(int(match[1] or 0), content.decode("utf-8", "replace"), "the run's artifacts")
        except MaskcastError:
            return


def workflow_of(run: V2beta1Run) -> str | None:
    """Returns the name of the run's Argo Workflow, which is the name of the top node."""
    names = [node.display_name or "" for node in task_nodes(run)]
    tops = (name for name in names if re.fullmatch(r".+-[a-z0-9]{5}", name) and f"{name}(0)" in names)
    return next(tops, None)


class Filter:
    """Separates the lines that a stage printed from those of kfp's launcher and Argo, line by line."""

    def __init__(self) -> None:
        self._inside = False

    def keeps(self, line: str) -> bool:
        """Returns whether the next line (without line end) was printed by the stage."""
        if self._inside:  # the JSON after a header ends with a line that starts with `}`
            self._inside = not line.startswith("}")
            return False
        if HEADER.match(line):
            self._inside = line.endswith(("{", "Got executor_input:"))
            return False
        return True


def stage_output(log: str) -> str:
    """Returns the lines of a log that the stage printed."""
    stage_lines = Filter()
    return "".join(f"{line}\n" for line in log.splitlines() if stage_lines.keeps(line))
