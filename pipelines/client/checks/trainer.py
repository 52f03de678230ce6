"""Checks Kubeflow Trainer, if a training runs on several nodes."""

from collections.abc import Iterator

from kubernetes import client

from maskcast.diagnostics.checks import CheckResult
from maskcast.runner.kube import GROUP, VERSION
from maskcast.runner.trainjob import RUNTIME
from pipelines.client.checks import Subject
from pipelines.client.kube import call_api


def trainer(subject: Subject) -> Iterator[CheckResult]:
    """Checks that it has the runtime of TrainJobs; says what nodes share."""
    if not subject.on_nodes:
        yield CheckResult("trainer", "ok", "not needed: every stage runs in one pod")
        return
    api, stages = client.CustomObjectsApi(subject.api), ", ".join(subject.on_nodes)
    if call_api(api.get_cluster_custom_object, GROUP, VERSION, "clustertrainingruntimes", RUNTIME) is None:
        found = f"{stages}: ClusterTrainingRuntime {RUNTIME!r} not found"
        remedy = "install Kubeflow Trainer 2.2 or later with its runtimes, or set training.nodes to 1"
        yield CheckResult("trainer", "failed", found, remedy)
        return
    workspace = subject.cluster.workspace
    is_shared = workspace is None or workspace.access_mode == "ReadWriteMany"
    place = "" if is_shared else "; all must run on one machine, as the workspace is ReadWriteOnce"
    yield CheckResult("trainer", "ok", f"{RUNTIME}, for the nodes of {stages}{place}")
