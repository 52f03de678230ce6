"""The checks of `preflight`: each yields rows, and one that fails or cannot be done stops no other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from maskcast.errors import MaskcastError
from pipelines.client.kube import ForbiddenError
from pipelines.cluster import Cluster, Pod

State = Literal["ok", "failed", "not checked"]


@dataclass(frozen=True)
class Row:
    """What one check found.

    Attributes:
        check: its name.
        state: `not checked` says that it cannot be done from here; it counts as neither of the others.
        found: what it found, or why it was not done.
        remedy: what to do, if anything.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


class NotCheckedError(Exception):
    """Why a check cannot be done from here."""


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


def rows_of(name: str, check: Check, subject: Subject) -> Iterator[Row]:
    """Yields the rows of a check; an error that ends it becomes its last row."""
    try:
        yield from check(subject)
    except (NotCheckedError, ForbiddenError) as why:
        yield _row(name, "not checked", why)
    except MaskcastError as error:
        yield failed(name, error)


def failed(name: str, error: MaskcastError) -> Row:
    """Returns the row of a check that an error ended."""
    return _row(name, "failed", error)


def _row(name: str, state: State, error: Exception) -> Row:
    """Returns a row; what to do stands after the first semicolon of the error."""
    found, _, remedy = " ".join(str(error).split()).partition("; ")
    return Row(name, state, found, remedy)
