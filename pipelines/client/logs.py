"""Prints what a stage printed, from its pod.

Without STAGE: the stage that failed, else the one that started last. Pods are read as kubectl reads them.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping

from kubernetes.client import CoreV1Api, V1Pod
from urllib3.exceptions import HTTPError

from maskcast.errors import MaskcastError
from maskcast.progress import say
from pipelines.client import kube
from pipelines.client.connection import add_connection, connect
from pipelines.client.watch import task_names
from pipelines.options import add_cluster

NODE_NAME = (
    "workflows.argoproj.io/node-name"  # <workflow>.root.<task>.executor, each with (n) where it is an attempt
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    parser.add_argument("run_id", metavar="RUN", help="id of the run")
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="stage of the run, e.g. train_masker")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it prints, until the pod ends")
    add_cluster(parser)
    add_connection(parser)


def run(given: argparse.Namespace) -> int:
    """Runs the command and returns its exit code."""
    with connect(given) as client:
        names = task_names(client, client.get_run(given.run_id))  # a wrong id is said here
        try:
            api = CoreV1Api(kube.connect())
            label = f"pipeline/runid={given.run_id}"
            pods = kube.ask(api.list_namespaced_pod, client.namespace, label_selector=label)
            stage, pod = _choose(_by_stage(pods.items, names), given.stage)
            say(f"{stage}, pod {pod.metadata.name} ({pod.status.phase})")
            _print_log(api, pod, given.follow)
        except MaskcastError as error:
            raise MaskcastError(f"{error}; or see {client.page(given.run_id)}") from None
    return 0


def _by_stage(pods: Iterable[V1Pod], names: Mapping[str, str]) -> dict[str, V1Pod]:
    """Returns the last pod of each stage, the one that started last at the end."""
    found: dict[str, V1Pod] = {}
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp):
        path = re.sub(r"\(\d+\)", "", (pod.metadata.annotations or {}).get(NODE_NAME, "")).split(".")
        if path[-1] == "executor":  # the others are kfp's drivers
            stage = names.get(path[-2], path[-2])
            found.pop(stage, None)
            found[stage] = pod
    return found


def _choose(pods: dict[str, V1Pod], stage: str | None) -> tuple[str, V1Pod]:
    failed = [name for name, pod in pods.items() if pod.status.phase == "Failed"]
    chosen = stage or (failed or list(pods) or ["any stage"])[-1]
    if chosen not in pods:
        raise MaskcastError(
            f"the run has no pod of {chosen} (only of: {', '.join(pods) or 'none'}): it has not started, "
            "came from the cache, or its pod is gone by now"
        )
    return chosen, pods[chosen]


def _print_log(api: CoreV1Api, pod: V1Pod, follow: bool) -> None:
    answer = kube.ask(
        api.read_namespaced_pod_log,
        pod.metadata.name,
        pod.metadata.namespace,
        container="main",
        follow=follow,
        _preload_content=False,
        _request_timeout=(kube.TIMEOUT_S[0], None),  # a stage may be silent for long
    )
    if answer is None:
        raise MaskcastError(f"pod {pod.metadata.name} is gone by now")
    try:
        for piece in answer.stream():
            sys.stdout.buffer.write(piece)
            sys.stdout.flush()
    except HTTPError as error:
        raise MaskcastError(f"the log breaks off here ({error}); run the same command again") from None
