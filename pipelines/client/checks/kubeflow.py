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
    users = f"you may see runs in {server.namespace}" if server.multi_user else "one user for all"
    store = server.health.get("pipeline_store", "database")
    found = f"{server.address}: version {tag}, {users}, pipelines in its {store}"
    own = version("kfp")
    numbers = re.match(r"v?(\d+)\.(\d+)", tag)
    if numbers and tuple(map(int, numbers.groups())) < tuple(map(int, own.split(".")[:2])):
        remedy = f"have Kubeflow Pipelines {own} installed: an older one refuses fields that it does not know"
        yield CheckResult("Kubeflow", "failed", f"{found}; kfp here is {own}", remedy)
    else:
        yield CheckResult("Kubeflow", "ok", found)


def retries(subject: Subject) -> Iterator[CheckResult]:
    """Checks Argo's configuration, which decides what `retries` does, and how long pods stay."""
    defaults = _workflow_defaults(subject)
    policy = _at(defaults, "templateDefaults", "retryStrategy").get("retryPolicy", "OnFailure")
    lost = "a pod that was lost is started again"
    asked = max((pod.retries for pod in subject.pods.values()), default=0)
    if not asked:
        yield CheckResult("retries", "ok", f"none are asked for; {RETRY}")
    elif policy == "OnError":
        remedy = f"have `retryPolicy: Always` set in `workflowDefaults` of {CONFIG}; until then {RETRY}"
        yield CheckResult(
            "retries", "ok", f"{lost}, a stage that ended with an exit code is not ({policy})", remedy
        )
    elif policy == "Always":
        yield CheckResult("retries", "ok", f"{lost}, and a stage that failed, too ({policy})")
    else:
        yield CheckResult("retries", "ok", f"a stage that failed is started again ({policy}); {RETRY}")
    seconds = _at(defaults, "ttlStrategy").get("secondsAfterCompletion")
    kept = f"for {int(seconds) // 60} min" if seconds is not None else "until somebody deletes it"
    yield CheckResult(
        "pods", "ok", f"an ended run keeps its pods {kept}; `maskcast pipeline logs` works after that"
    )


def _workflow_defaults(subject: Subject) -> dict[str, Any]:
    """Returns the defaults that Argo adds to each workflow.

    Raises:
        NotCheckedError: if they may not be read, or are not where Kubeflow puts them.
    """
    place = f"ConfigMap {CONFIG} in namespace {subject.kubeflow}"
    remedy = f"ask who runs Kubeflow for its retryPolicy; {RETRY}"
    try:
        found = call_api(client.CoreV1Api(subject.api).read_namespaced_config_map, CONFIG, subject.kubeflow)
    except ForbiddenError:
        raise NotCheckedError(f"you may not read {place}; {remedy}") from None
    if found is None:
        raise NotCheckedError(f"there is no {place}; {remedy}")
    try:
        defaults = yaml.safe_load((found.data or {}).get("workflowDefaults", "")) or {}
    except yaml.YAMLError as error:
        raise MaskcastError(f"{place}: workflowDefaults is no YAML ({error}); have it fixed") from None
    return _at(defaults, "spec")


def _at(content: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}
