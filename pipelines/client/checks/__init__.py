"""The checks of `preflight`: each yields rows, and one that fails or cannot be done stops no other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maskcast.checkup.rows import Row
from pipelines.cluster import Cluster, Pod


@dataclass(frozen=True)
class Subject:
    """What is checked: a cluster and what a pipeline asks of it.

    Attributes:
        cluster: the cluster.
        pods: what the pod of each stage asks for.
        data_uri: where `fetch_dataset` finds the data set.
        api: the client of its Kubernetes API, or None when it does not answer.
        kubeflow: the namespace where Kubeflow Pipelines is installed.
    """

    cluster: Cluster
    pods: Mapping[str, Pod]
    data_uri: str
    api: Any
    kubeflow: str = "kubeflow"

    @property
    def namespace(self) -> str:
        """The namespace of the runs."""
        return self.cluster.namespace


Check = Callable[[Subject], Iterator[Row]]
