"""The checks of `preflight`. Each yields rows; one that fails or cannot be done does not stop the others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskcast.diagnostics.checks import CheckResult
from pipelines.cluster import Cluster
from pipelines.pod_resources import Pod


@dataclass(frozen=True)
class Subject:
    """What is checked: a cluster, and what a pipeline requires of it.

    Attributes:
        cluster: the cluster.
        pods: required resources of each stage's pod.
        data_uri: address from which `fetch_dataset` reads the data set.
        api: client of the Kubernetes API, or None if it does not answer.
        kubeflow: namespace in which Kubeflow Pipelines is installed.
        on_nodes: names of the stages that train on several nodes.
    """

    cluster: Cluster
    pods: Mapping[str, Pod]
    data_uri: str
    api: Any
    kubeflow: str = "kubeflow"
    on_nodes: Sequence[str] = ()

    @property
    def namespace(self) -> str:
        """The namespace of the runs."""
        return self.cluster.namespace


Check = Callable[[Subject], Iterator[CheckResult]]
