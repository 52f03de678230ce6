"""Checks that Kubeflow Pipelines answers, accepts the credentials and is recent enough; reports its retries."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import yaml
from kubernetes import client

from maskcast.diagnostics.checks import CheckResult, NotCheckedError
from maskcast.errors import MaskcastError
from pipelines.client.checks import Subject
from pipelines.client.connection import Client
from pipelines.client.kube import ForbiddenError, call_api

CONFIG = "workflow-controller-configmap"
RETRY = "`maskcast pipeline retry RUN` restarts a run from where it ended"


def kubeflow(server: Client) -> Iterator[CheckResult]:
    """Checks that it answers, allows listing runs in the namespace, and supports this version of kfp."""
    server.list_runs(page_size=1)
    tag = str(server.health.get("tag_name") or "unknown")
    users = f"you can list runs in {server.namespace}" if server.multi_user else "single-user"
    store = server.health.get("pipeline_store", "database")
    found = f"{server.address}: version {tag}, {users}, pipelines in its {store}"
    client_version = version("kfp")
    numbers = re.match(r"v?(\d+)\.(\d+)", tag)
    if numbers and tuple(map(int, numbers.groups())) < tuple(map(int, client_version.split(".")[:2])):
        remedy = f"upgrade Kubeflow Pipelines to {client_version}: an older version refuses unknown fields"
        yield CheckResult("Kubeflow", "failed", f"{found}; kfp here is {client_version}", remedy)
    else:
        yield CheckResult("Kubeflow", "ok", found)


def retries(subject: Subject) -> Iterator[CheckResult]:
    """Checks Argo's configuration, which determines the effect of `retries`, and how long pods are kept."""
    defaults = _workflow_defaults(subject)
    policy = _at(defaults, "templateDefaults", "retryStrategy").get("retryPolicy", "OnFailure")
    lost = "a lost pod is restarted"
    requested = max((pod.retries for pod in subject.pods.values()), default=0)
    if not requested:
        yield CheckResult("retries", "ok", f"none requested; {RETRY}")
    elif policy == "OnError":
        remedy = f"set `retryPolicy: Always` in `workflowDefaults` of {CONFIG}; until then {RETRY}"
        yield CheckResult(
            "retries", "ok", f"{lost}, but not a stage that failed with an exit code ({policy})", remedy
        )
    elif policy == "Always":
        yield CheckResult("retries", "ok", f"{lost}, and so is a failed stage ({policy})")
    else:
        yield CheckResult("retries", "ok", f"a failed stage is restarted ({policy}); {RETRY}")
    seconds = _at(defaults, "ttlStrategy").get("secondsAfterCompletion")
    kept = f"for {int(seconds) // 60} min" if seconds is not None else "until it is deleted"
    yield CheckResult(
        "pods", "ok", f"an ended run keeps its pods {kept}; `maskcast pipeline logs` works after that"
    )


def _workflow_defaults(subject: Subject) -> dict[str, Any]:
    """Returns the defaults that Argo adds to each workflow.

    Raises:
        NotCheckedError: the permission to read them is missing, or they are not where Kubeflow installs them.
    """
    config_map = f"ConfigMap {CONFIG} in namespace {subject.kubeflow}"
    remedy = f"ask Kubeflow's administrator for its retryPolicy; {RETRY}"
    try:
        found = call_api(client.CoreV1Api(subject.api).read_namespaced_config_map, CONFIG, subject.kubeflow)
    except ForbiddenError:
        raise NotCheckedError(f"no permission to read {config_map}; {remedy}") from None
    if found is None:
        raise NotCheckedError(f"{config_map} not found; {remedy}")
    try:
        defaults = yaml.safe_load((found.data or {}).get("workflowDefaults", "")) or {}
    except yaml.YAMLError as error:
        raise MaskcastError(f"{config_map}: workflowDefaults is not valid YAML ({error}); fix it") from None
    return _at(defaults, "spec")


def _at(content: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
