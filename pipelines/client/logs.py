"""Prints the log of a stage, attempt by attempt.

The default of STAGE is the stage that failed, else the one that started last. The log is read from the stage's
pod; if that was deleted, from Kubeflow's archive, then from the artifacts of the run (with the S3 credentials of
the environment).
"""

import argparse
import io
import sys
from collections.abc import Sequence

from kfp_server_api.models import V2beta1Run
from kubernetes.client import CoreV1Api
from urllib3.exceptions import HTTPError

from maskcast.errors import MaskcastError
from maskcast.progress import say
from pipelines.client import kube
from pipelines.client.connection import add_run, connect
from pipelines.client.pods import MAIN, RunPods, StagePod, cached_run_id, executors, is_loop
from pipelines.client.stage_logs import DRIVER_FAILED, Filter, StageLogs, stage_output
from pipelines.client.stages import THE_RUN, StageState, driver_failed, stage_states, task_names

ROOT = "root"  # kfp's name of the run's own task
RAN = ("RUNNING", "SUCCEEDED", "FAILED", "CANCELED")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags of the command."""
    add_run(parser)
    parser.add_argument("stage", metavar="STAGE", nargs="?", help="stage of the run, e.g. train_masker")
    parser.add_argument("-f", "--follow", action="store_true", help="follow the log until the pod ends")
    parser.add_argument("--all", action="store_true", help="also print the lines of Kubeflow and Argo")


def run(args: argparse.Namespace) -> int:
    """Runs the command and returns its exit code.

    Raises:
        MaskcastError: the log is not found; names the page of the run.
    """
    with connect(args) as client:
        run_details = client.get_run(args.run_id)  # raises for an unknown id
        stages = stage_states(run_details, task_names(client, run_details))
        access = RunPods.of(client, run_details)
        try:
            pods = access.pods()
            stage = _choose(run_details, stages, pods, args.stage)
            stage_pods = executors(pods, stage.task)
            is_active = bool(stage_pods) and stage_pods[-1].pod.status.phase in ("Pending", "Running")
            if args.follow and access.api and is_active:
                _follow(access.api, stage.name, stage_pods[-1], args.all)
            else:
                _print(StageLogs(client, run_details, pods, access.api, access.hidden), stage, args.all)
        except MaskcastError as error:
            raise MaskcastError(f"{error}; or see {client.page(args.run_id)}") from None
    return 0


def _choose(
    run: V2beta1Run, stages: Sequence[StageState], pods: Sequence[StagePod], wanted: str | None
) -> StageState:
    """Returns the stage to show: the requested one, the first failed one, or the last started one.

    A run whose own driver failed has started none; its driver is shown.

    Raises:
        MaskcastError: if there is no stage with this name, or none has started.
    """
    if wanted:
        name = wanted.replace("-", "_")
        for each in stages:
            if each.name == name:
                return each
        raise MaskcastError(
            f"unknown stage {wanted!r}; stages of the run: {', '.join(each.name for each in stages)}"
        )
    # Pods are most recent; Kubeflow's API lags behind, but also knows about deleted pods.
    last = {each.task: each.pod.status.phase for each in pods if not each.driver}
    failed = [each for each in stages if each.state == "FAILED" or last.get(each.task) == "Failed"]
    started = [each for each in stages if each.state in RAN or each.task in last]
    if not started and driver_failed(run, ROOT):
        return StageState(THE_RUN, ROOT, "FAILED")
    if not started:
        raise MaskcastError("no stage of the run has started")
    order = list(last)
    return (
        failed[0] if failed else max(started, key=lambda each: order.index(each.task) if each.task in last else -1)
    )


def _print(logs: StageLogs, stage: StageState, everything: bool) -> None:
    attempts = logs.of(stage.task) if stage.state in RAN or executors(logs.pods, stage.task) else []
    if not attempts and driver_failed(logs.run, stage.task) and (text := logs.of_driver(stage.task)) is not None:
        say(f"{stage.name}, of kfp's driver")
        sys.stdout.write(text)
        return
    if not attempts:
        raise MaskcastError(f"{stage.name}: {_missing_reason(logs, stage)}")
    for log in attempts:
        say(f"{stage.name}, attempt {log.attempt + 1}, from {log.source}")
        sys.stdout.write(log.text if everything else stage_output(log.text))
        sys.stdout.flush()


def _missing_reason(logs: StageLogs, stage: StageState) -> str:
    """Returns the reason why a stage has no log."""
    if stage.state == "CACHED":
        if cached_id := cached_run_id(logs.pods, stage.task, logs.run.run_id):
            return f"its outputs are from the cache; its log: {logs.client.command('logs', cached_id, stage.name)}"
        return "its outputs are from the cache of an earlier run"
    if stage.state in ("PENDING", "SKIPPED"):
        return f"it is {stage.state} and has no log"
    if is_loop(stage.task):
        return "it is a loop and has no log of its own; the page of the run has those of its tasks"
    why = f" ({logs.hidden})" if logs.hidden else ""
    if driver_failed(logs.run, stage.task):
        return f"{DRIVER_FAILED}: {logs.missing_driver(stage.task)}{why}"
    return f"{logs.missing(stage.task)}{why}"


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
        raise MaskcastError(f"pod {pod.name} was deleted")
    stage_lines = Filter()
    try:
        for line in io.TextIOWrapper(answer, encoding="utf-8", errors="replace"):
            if everything or stage_lines.keeps(line.rstrip("\n")):
                print(line, end="", flush=True)
    except HTTPError as error:
        raise MaskcastError(f"the connection to the log was lost ({error}); run the same command again") from None
