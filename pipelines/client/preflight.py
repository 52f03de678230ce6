"""Checks that everything a run needs is in place: one table, each row ok or with a remedy. `submit` runs it first.

It queries Kubeflow, the Kubernetes API (as kubectl does), MLflow, S3 and the DVC remote; nothing runs on the
cluster. A row that cannot be checked from this machine says how to check it, and does not count as a failure. Two
things are written and removed at once: an object below `pipeline_root`, and an MLflow run called "preflight".
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from kubernetes import client
from rich.console import Console
from rich.text import Text

from maskcast.diagnostics.checks import CheckResult, NotCheckedError, error_result, format_results, run_checks
from maskcast.errors import MaskcastError
from pipelines.client.checks import Check, Subject
from pipelines.client.checks.kubeflow import kubeflow, retries
from pipelines.client.checks.namespace import (
    files,
    namespace,
    pull_secrets,
    rights,
    secrets,
    service_account,
    workspace,
    your_rights,
)
from pipelines.client.checks.nodes import nodes, quota
from pipelines.client.checks.pod_environment import pod_environment
from pipelines.client.checks.queue import queue
from pipelines.client.checks.storage import artifacts, data, launcher
from pipelines.client.checks.tracking import mlflow
from pipelines.client.checks.trainer import trainer
from pipelines.client.connection import Client, NoServerError, add_connection, cluster_of
from pipelines.client.connection import connect as connect_kubeflow
from pipelines.client.kube import NoClusterError, call_api, connect
from pipelines.cluster import Cluster
from pipelines.compile import build, grid_plan, read_values
from pipelines.options import add_cluster, add_grid, add_pipeline
from pipelines.placement import Placement
from pipelines.pod_resources import Pod
from pipelines.scale import pods_of_nodes

API_CHECKS: dict[str, Check] = {
    "namespace": namespace,
    "service account": service_account,
    "rights": rights,
    "your rights": your_rights,
    "secrets": secrets,
    "files": files,
    "pull secrets": pull_secrets,
    "workspace": workspace,
    "nodes": nodes,
    "quota": quota,
    "queue": queue,
    "trainer": trainer,
    "launcher": launcher,
    "retries": retries,
}
OTHER_CHECKS: dict[str, Check] = {"artifacts": artifacts, "data": data, "MLflow": mlflow}
LIMIT_S = 60
COLOURS = {"ok": "green", "failed": "red", "not checked": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_pipeline(parser)
    add_grid(parser)
    add_cluster(parser)
    add_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command; returns 0 if nothing failed, else 1."""
    with _server(args) as server:
        return 0 if print_checks(args, cluster_of(args), server) else 1


def check_cluster(cluster_file: Path) -> list[CheckResult]:
    """Returns the results for the default pipeline on a cluster.

    Raises:
        MaskcastError: the cluster file or the params are invalid.
    """
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args(["--cluster", str(cluster_file)])
    with _server(args) as server:
        return check_submission(args, cluster_of(args), server)


@contextmanager
def _server(args: argparse.Namespace) -> Iterator[Client | MaskcastError]:
    """Yields the connection to Kubeflow, or the error if there is none."""
    with ExitStack() as stack:
        try:
            server: Client | MaskcastError = stack.enter_context(connect_kubeflow(args))
        except MaskcastError as error:
            server = error
        yield server


def print_checks(args: argparse.Namespace, cluster: Cluster, server: Client | MaskcastError) -> bool:
    """Checks what a run needs, prints the table, and returns whether nothing failed; see `check_submission`."""
    rows = check_submission(args, cluster, server)
    Console().print(_table(rows), soft_wrap=True)
    return all(row.state != "failed" for row in rows)


def check_submission(
    args: argparse.Namespace, cluster: Cluster, server: Client | MaskcastError
) -> list[CheckResult]:
    """Returns the results of all checks for a run of a pipeline.

    Args:
        args: the flags of `add_arguments`.
        cluster: content of the cluster file.
        server: connection to Kubeflow, or its error.

    Raises:
        MaskcastError: the params are invalid, or a training would fail on the cluster.
    """
    placement = Placement(cluster.image, cluster)
    values, _ = read_values(args.pipeline, args.params, args.set)
    grid = grid_plan(args, values)
    build(args.pipeline, values, placement, grid)
    on_nodes = pods_of_nodes(placement, values, grid)
    pods = placement.pods | {f"{name} (nodes)": pod for name, pod in on_nodes.items()}
    uri = str(values["fetch_dataset"]["uri"])
    return preflight(cluster, pods, uri, server, args.port_forward or "kubeflow", [*on_nodes])


def preflight(
    cluster: Cluster,
    pods: Mapping[str, Pod],
    data_uri: str,
    server: Client | MaskcastError,
    installed: str,
    on_nodes: Sequence[str] = (),
) -> list[CheckResult]:
    """Returns the results of all checks, which run concurrently; late ones fail.

    Args:
        cluster: the cluster.
        pods: required resources of each stage's pod.
        data_uri: address from which `fetch_dataset` reads the data set.
        server: connection to Kubeflow, or its error.
        installed: namespace of Kubeflow.
        on_nodes: names of the stages that train on several nodes.
    """
    api, first = _api()
    subject = Subject(cluster, pods, data_uri, api, installed, on_nodes)
    first_checks: dict[str, Check] = {"Kubeflow": partial(_kubeflow, server), "image": _image}
    checks = first_checks | (API_CHECKS if api else {}) | OTHER_CHECKS
    with pod_environment(subject):
        rows = run_checks({name: partial(check, subject) for name, check in checks.items()}, LIMIT_S, "failed")
    without = CheckResult("the cluster", "not checked", f"requires that API: {', '.join(API_CHECKS)}")
    return [first, *([] if api else [without]), *rows]


def _api() -> tuple[Any, CheckResult]:
    """Returns the client of the Kubernetes API, or None without a usable one, and its row."""
    try:
        api = connect()
        version = call_api(client.VersionApi(api).get_code)
        if version is None:
            raise MaskcastError(f"{api.configuration.host} is not a Kubernetes API; fix KUBECONFIG")
    except NoClusterError as error:  # a CI job, for example, needs none to submit
        return None, error_result("Kubernetes API", "not checked", error)
    except MaskcastError as error:
        return None, error_result("Kubernetes API", "failed", error)
    return api, CheckResult("Kubernetes API", "ok", f"{api.configuration.host}, {version.git_version}")


def _kubeflow(server: Client | MaskcastError, _: Subject) -> Iterator[CheckResult]:
    if isinstance(server, NoServerError):
        raise NotCheckedError(str(server))
    if isinstance(server, MaskcastError):
        raise server
    yield from kubeflow(server)


def _image(subject: Subject) -> Iterator[CheckResult]:
    """Checks that it is pinned, so that the tested code runs, and caching is valid."""
    problem = subject.cluster.image_problem
    if problem:
        yield CheckResult("image", "failed", *problem)
    else:
        yield CheckResult("image", "ok", subject.cluster.image)


def _table(rows: list[CheckResult]) -> Text:
    """Returns the rows as text, with states in colour on a terminal, and remedies below the findings."""
    table = Text(format_results(rows))
    for state, colour in COLOURS.items():
        table.highlight_regex(f"(?m)^{state}", colour)
    return table
