"""Prints the log of a stage, attempt by attempt.

Without STAGE it is the stage that failed, else the one that started last. The log is read from the stage's pod; if
that is gone, from Kubeflow's archive, then from the artifacts of the run (with the S3 credentials of the
environment).
"""

import argparse
import io
import sys
from collections.abc import Sequence

from kubernetes.client import CoreV1Api
from urllib3.exceptions import HTTPError

from maskcast.errors import MaskcastError
from maskcast.progress import say
from pipelines.client import kube
from pipelines.client.connection import add_run, connect
from pipelines.client.pods import MAIN, RunPods, StagePod, cached_run_id, executors
from pipelines.client.stage_logs import Filter, StageLogs, stage_output
from pipelines.client.stages import StageState, stage_states, task_names

RAN = ("RUNNING", "SUCCEEDED", "FAILED", "CANCELED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_run(parser)
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="stage of the run, e.g. train_masker")
    parser.add_argument("-f", "--follow", action="store_true", help="follow the log until the pod ends")
    parser.add_argument("--all", action="store_true", help="print the lines of Kubeflow and Argo, too")


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code.

    Raises:
        MaskcastError: when there is no log, with the place to look.
    """
    with connect(args) as client:
        found = client.get_run(args.run_id)  # reports a wrong id
        stages, reach = stage_states(found, task_names(client, found)), RunPods.of(client, found)
        try:
            pods = reach.pods()
            stage = _choose(stages, pods, args.stage)
            mine = executors(pods, stage.task)
            if args.follow and reach.api and mine and mine[-1].pod.status.phase in ("Pending", "Running"):
                _follow(reach.api, stage.name, mine[-1], args.all)
            else:
                _print(StageLogs(client, found, pods, reach.api), stage, args.all)
        except MaskcastError as error:
            raise MaskcastError(f"{error}; or see {client.page(args.run_id)}") from None
    return 0


def _choose(stages: Sequence[StageState], pods: Sequence[StagePod], wanted: str | None) -> StageState:
    """Returns the stage to show: the requested one, the first failed one, or the last started one.

    Raises:
        MaskcastError: if there is no stage with this name, or none has started.
    """
    if wanted:
        name = wanted.replace("-", "_")
        for each in stages:
            if each.name == name:
                return each
        raise MaskcastError(f"the run has no stage {wanted!r}, only {', '.join(each.name for each in stages)}")
    # Pods are most recent; Kubeflow's API lags behind, but also knows about deleted pods.
    last = {each.task: each.pod.status.phase for each in pods if not each.driver}
    failed = [each for each in stages if each.state == "FAILED" or last.get(each.task) == "Failed"]
    started = [each for each in stages if each.state in RAN or each.task in last]
    if not started:
        raise MaskcastError("no stage of the run has started")
    order = list(last)
    return (
        failed[0] if failed else max(started, key=lambda each: order.index(each.task) if each.task in last else -1)
    )


def _print(logs: StageLogs, stage: StageState, everything: bool) -> None:
    found = logs.of(stage.task) if stage.state in RAN or executors(logs.pods, stage.task) else []
    if not found:
        raise MaskcastError(f"{stage.name}: {_nothing(logs, stage)}")
    for log in found:
        say(f"{stage.name}, attempt {log.attempt + 1}, from {log.source}")
        sys.stdout.write(log.text if everything else stage_output(log.text))
        sys.stdout.flush()


def _nothing(logs: StageLogs, stage: StageState) -> str:
    """Returns the reason why a stage has no log."""
    if stage.state == "CACHED":
        if maker := cached_run_id(logs.pods, stage.task, logs.run.run_id):
            return f"it came from the cache; where it ran: {logs.client.command('logs', maker, stage.name)}"
        return "it came from the cache of an earlier run"
    if stage.state in ("PENDING", "SKIPPED"):
        return f"it is {stage.state} and has printed nothing"
    return "its pod is gone, and nobody kept what it printed"


def _follow(api: CoreV1Api, stage: str, pod: StagePod, everything: bool) -> None:
    say(f"{stage}, attempt {pod.attempt + 1}, pod {pod.name}")
    answer = kube.call_api(
        api.read_namespaced_pod_log,
        pod.name,
        pod.pod.metadata.namespace,
        container=MAIN,
        follow=True,
        _preload_content=False,
        _request_timeout=(kube.TIMEOUT_S[0], None),  # a stage may print nothing for long
    )
    if answer is None:
        raise MaskcastError(f"pod {pod.name} is gone by now")
    mine = Filter()
    try:
        for line in io.TextIOWrapper(answer, encoding="utf-8", errors="replace"):
            if everything or mine.keeps(line.rstrip("\n")):
                print(line, end="", flush=True)
    except HTTPError as error:
        raise MaskcastError(f"the log breaks off here ({error}); run the same command again") from None
