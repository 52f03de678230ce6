"""TrainJobs in the namespace of this pod; the only module that imports Kubernetes."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes.config import ConfigException
from kubernetes.config.incluster_config import InClusterConfigLoader
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.runner.pod_status import WaitReporter, warnings_selector, why_pending

Json = dict[str, Any]
GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
NODE = "node"  # name of job and container in Trainer's runtimes
INDEX = "batch.kubernetes.io/job-completion-index"

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # mounted into every pod
POLL_S = 5.0
REPORT_AFTER_S = 30.0  # before reasons for waiting are reported
TIMEOUT_S = (5, 30)  # (connect, read)
# covers about four minutes without an API server; requests that create are never repeated
RETRIES = Retry(10, backoff_factor=0.5, backoff_max=60, status_forcelist=(429, 500, 502, 503, 504))
LAST_LINES = 200  # lines of a failed node's log to read; torchrun's report is long


@contextmanager
def connect_in_cluster() -> Iterator["PodNamespace"]:
    """Connects to the cluster that this pod is part of, as its service account.

    Raises:
        MaskcastError: this process does not run in a pod.
    """
    configuration = client.Configuration()
    configuration.retries = RETRIES
    try:
        InClusterConfigLoader(ACCOUNT / "token", ACCOUNT / "ca.crt").load_and_set(configuration)
        namespace = (ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except (ConfigException, OSError):
        raise MaskcastError(
            "training.nodes: a value above 1 creates a TrainJob, which works only in a pod; set it to 1, or run "
            "torchrun on each machine"
        ) from None
    with client.ApiClient(configuration) as api:
        yield PodNamespace(api, namespace)


class PodNamespace:
    """The API of the pod's namespace; every method raises a MaskcastError if the API refuses."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.api, self.core, self.custom = api, client.CoreV1Api(api), client.CustomObjectsApi(api)
        self.namespace = namespace

    def this_pod(self) -> Json:
        """Returns the pod of this process."""
        name = os.environ.get("KFP_POD_NAME") or socket.gethostname()  # truncated if the name is long
        pod = _request("read this pod", self.core.read_namespaced_pod, name, self.namespace)
        return self.api.sanitize_for_serialization(pod)

    def run(self, job: Json) -> None:
        """Creates a TrainJob, shows the log of its first node, waits for its end and deletes it.

        Raises:
            MaskcastError: the job fails; the message is that of the failed node, if it left one.
        """
        name, trainer = job["metadata"]["name"], job["spec"]["trainer"]
        while self._delete(name):  # left by a killed attempt; stopping may take a while
            time.sleep(POLL_S)
        nodes, processes = trainer["numNodes"], trainer["numProcPerNode"]
        try:
            _request("create a TrainJob", self.custom.create_namespaced_custom_object, *self._jobs, job)
            say(f"TrainJob {name}: {pluralize(nodes, 'node')} x {pluralize(processes, 'process')}")
            self._wait(name, nodes)
        finally:
            try:
                self._delete(name)
            except MaskcastError as error:
                say(f"TrainJob {name} cannot be deleted now ({error}); it is deleted with this pod")

    def _wait(self, name: str, nodes: int) -> None:
        log, running, reporter = _Log(self.core), 0, WaitReporter(f"TrainJob {name}", REPORT_AFTER_S)
        while True:
            job = _request("read a TrainJob", self.custom.get_namespaced_custom_object, *self._jobs, name)
            pods = self._pods(name)
            if (now := sum(pod.status.phase != "Pending" for pod in pods)) > running:
                running = now
                say(f"TrainJob {name}: {running} of {pluralize(nodes, 'node', 'has', 'have')} started")
            for pod in pods:
                if pod.metadata.labels.get(INDEX) == "0":
                    log.show_new(pod)
            for condition in job.get("status", {}).get("conditions", []):
                if condition["status"] == "True" and condition["type"] == "Complete":
                    return
                if condition["status"] == "True" and condition["type"] == "Failed":
                    raise self._failure(name, pods, condition.get("message", "no reason given"))
            if running < nodes:
                reporter.report_new(self._waiting_reasons(name, job, pods))
            time.sleep(POLL_S)

    def _waiting_reasons(self, name: str, job: Json, pods: Sequence[Any]) -> Iterator[str]:
        """Yields reasons why nodes have not started, from pods and from the job's conditions and events."""
        for pod in pods:
            if pod.status.phase == "Pending" and (reason := why_pending(pod, self._warnings)):
                yield f"node {pod.metadata.labels.get(INDEX)} waits: {reason}"
        for condition in job.get("status", {}).get("conditions", []):
            if message := condition.get("message"):
                yield f"{condition['type']} is {condition['status']}: {message}"
        # If the API rejects a JobSet, only events report it.
        yield from (f"{event.reason}: {event.message}" for event in self._warnings(name))

    def _warnings(self, name: str) -> list[Any]:
        """Returns the events of type Warning of the object with a name; empty if the role cannot read them."""
        selector = warnings_selector(name)
        try:
            events = _request(
                "list events", self.core.list_namespaced_event, self.namespace, field_selector=selector
            )
        except _RefusedError:
            return []
        return list(events.items)

    def _failure(self, name: str, pods: Sequence[Any], message: str) -> MaskcastError:
        """Returns the error of a failed node, or else that of the job."""
        for pod in pods:
            if pod.status.phase == "Failed":
                lines = _read_log(self.core, pod, tail_lines=LAST_LINES)
                errors = [line for line in lines if line.startswith("error: ")]
                if errors:
                    return MaskcastError(
                        f"{errors[0].removeprefix('error: ')} (node {pod.metadata.labels.get(INDEX)})"
                    )
                for line in lines:
                    say(f"{pod.metadata.name}: {line}")
        return MaskcastError(
            f"TrainJob {name} failed: {message}; run the same command again to resume from the last checkpoint"
        )

    def _pods(self, name: str) -> list[Any]:
        selector = f"jobset.sigs.k8s.io/jobset-name={name},jobset.sigs.k8s.io/replicatedjob-name={NODE}"
        pods = _request("list pods", self.core.list_namespaced_pod, self.namespace, label_selector=selector)
        return list(pods.items)

    def _delete(self, name: str) -> bool:
        """Deletes a TrainJob with its pods; returns whether it still exists."""
        try:
            _request(
                "delete a TrainJob",
                self.custom.delete_namespaced_custom_object,
                *self._jobs,
                name,
                propagation_policy="Foreground",
            )
        except _RefusedError as error:
            if error.status != 404:
                raise
            return False
        return True

    @property
    def _jobs(self) -> tuple[str, str, str, str]:
        return GROUP, VERSION, self.namespace, "trainjobs"


class _Log:
    """Prints a pod's log, each line once, even if the API fails in between."""

    def __init__(self, core: client.CoreV1Api) -> None:
        self.core, self.last, self.read_at = core, "", 0.0

    def show_new(self, pod: Any) -> None:
        """Prints the new lines."""
        now = time.monotonic()
        recent = {"since_seconds": int(now - self.read_at) + 60} if self.last else {}
        stamped = [line.partition(" ") for line in _read_log(self.core, pod, timestamps=True, **recent)]
        for stamp, _, line in stamped:
            if stamp > self.last:
                say(line)
        self.last, self.read_at = max([self.last, *(stamp for stamp, _, _ in stamped)]), now


def _read_log(core: client.CoreV1Api, pod: Any, **options: Any) -> list[str]:
    """Returns the lines of a node's log; none if it has not started or is gone."""
    name, namespace = pod.metadata.name, pod.metadata.namespace
    try:
        text = _request(
            "read the log of a pod", core.read_namespaced_pod_log, name, namespace, container=NODE, **options
        )
    except _RefusedError as error:
        if error.status not in (400, 404):
            raise
        return []
    return str(text).splitlines()


class _RefusedError(MaskcastError):
    """The API server refused a request."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def _request(what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Returns the API's response; a refusal becomes an error of one line."""
    try:
        return call(*arguments, **options, _request_timeout=TIMEOUT_S)
    except client.ApiException as error:
        remedy = {
            403: "apply the role that `maskcast pipeline setup` writes",
            404: "install Kubeflow Trainer 2.2 or later" if what.startswith("create") else "it may be deleted",
        }.get(error.status, "fix the cause and run the stage again")
        raise _RefusedError(
            f"the Kubernetes API refused to {what} ({error.status}: {api_message(error)}); {remedy}",
            error.status,
        ) from None
    except HTTPError as error:
        raise MaskcastError(f"the Kubernetes API is unreachable ({error}); run the same command again") from None


def api_message(error: client.ApiException) -> str:
    """Returns the API's message for a refusal."""
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
