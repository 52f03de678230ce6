"""Checks the Kueue queue that admits pods, if the cluster file names one."""

from collections.abc import Iterator

from kubernetes import client

from maskcast.diagnostics.checks import CheckResult
from pipelines.client.checks import Subject
from pipelines.client.kube import call_api
from pipelines.pod_metadata import KUEUE

VERSIONS = ("v1beta2", "v1beta1")  # of Kueue's API, the newest first


def queue(subject: Subject) -> Iterator[CheckResult]:
    """Checks that its LocalQueue is in the namespace; otherwise pods would wait forever."""
    name = subject.cluster.queue
    if name is None:
        yield CheckResult("queue", "ok", "none configured: pods start when a node has capacity")
        return
    api = client.CustomObjectsApi(subject.api)
    for version in VERSIONS:
        found = call_api(api.get_namespaced_custom_object, KUEUE, version, subject.namespace, "localqueues", name)
        if found is not None:
            cluster_queue = found.get("spec", {}).get("clusterQueue", "no ClusterQueue")
            yield CheckResult("queue", "ok", f"{name}, of {cluster_queue}")
            return
    remedy = "fix `queue` in the cluster file, or install Kueue and create the queue"
    yield CheckResult("queue", "failed", f"LocalQueue {name!r} not found in {subject.namespace}", remedy)
