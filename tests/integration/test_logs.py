"""logs: of which stage, from which pod, and what it says when there is none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from tests.integration.conftest import S3, Done
from tests.integration.kfp_server import KfpServer, task
from tests.integration.kube_api import KubeApi

from pipelines.client import kube as pipelines_kube
from pipelines.client.pods import executor_name, executor_templates

Cli = Callable[..., Done]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def run_id(kfp_server: KfpServer) -> str:
    names = {
        task: task.replace("-", " ") for task in ("fetch-dataset", "prepare-clips", "generate-masks", "predict")
    }
    names |= {"train-masker": "train masker", "train-masker-2": "second masker"}
    spec = {"root": {"dag": {"tasks": {task: {"taskInfo": {"name": name}} for task, name in names.items()}}}}
    run = {"run_id": "run-1", "state": "FAILED", "pipeline_spec": spec, "experiment_id": "trial"}
    kfp_server.stored["runs"]["run-1"] = run
    kfp_server.stored["experiments"]["trial"] = {"experiment_id": "trial", "namespace": "team"}
    return "run-1"


def pod(kube: KubeApi, node: str, phase: str, minute: int, run_id: str = "run-1") -> None:
    """Adds a pod as Argo makes it for a node of a run; it printed its name."""
    name, status = f"wf-{minute}", client.V1PodStatus(phase=phase)
    made = kube.put("pods", name, "team", labels={"pipeline/runid": run_id}, status=status)
    made.metadata.annotations = {"workflows.argoproj.io/node-name": f"wf.{node}"}
    made.metadata.creation_timestamp = NOON + timedelta(minutes=minute)
    kube.logs[name] = [f"{node} says\n"]


def test_a_stage_is_named_or_it_is_the_one_that_failed_or_the_last(
    kube: KubeApi, kfp_server: KfpServer, pipelines: Cli, run_id: str
) -> None:
    pod(kube, "root.fetch-dataset-driver", "Succeeded", 1)
    pod(kube, "root.fetch-dataset.executor", "Succeeded", 2)
    pod(kube, "root.train-masker.executor", "Running", 4)
    pod(kube, "root.prepare-clips.executor", "Succeeded", 3)
    pod(kube, "root.evaluate.executor", "Failed", 9, run_id="another")
    last = pipelines("logs", run_id)
    assert (last.code, last.out) == (0, "root.train-masker.executor says\n"), last.err
    assert last.err == "train_masker, attempt 1, from pod wf-4\n"
    assert pipelines("logs", run_id, "fetch_dataset", "--follow").out == "root.fetch-dataset.executor says\n"
    pod(kube, "root.generate-masks.executor", "Failed", 5)
    pod(kube, "root.predict.executor", "Running", 6)
    assert pipelines("logs", run_id).out == "root.generate-masks.executor says\n"


def test_a_stage_that_stands_there_twice_is_asked_for_by_its_name(
    kube: KubeApi, pipelines: Cli, run_id: str
) -> None:
    pod(kube, "root.train-masker.executor", "Succeeded", 1)
    pod(kube, "root.train-masker-2.executor", "Succeeded", 2)
    assert pipelines("logs", run_id, "train_masker").out == "root.train-masker.executor says\n"
    assert pipelines("logs", run_id, "second_masker").out == "root.train-masker-2.executor says\n"


def test_every_attempt_is_printed(kube: KubeApi, pipelines: Cli, run_id: str) -> None:
    pod(kube, "root(0).train-masker(0).executor(0)", "Failed", 1)
    pod(kube, "root(0).train-masker(0).executor(1)", "Running", 2)
    both = pipelines("logs", run_id, "train_masker")
    assert both.out == "root(0).train-masker(0).executor(0) says\nroot(0).train-masker(0).executor(1) says\n"
    assert both.err == "train_masker, attempt 1, from pod wf-1\ntrain_masker, attempt 2, from pod wf-2\n"


def test_a_log_is_followed_while_the_stage_is_silent(
    kube: KubeApi, pipelines: Cli, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, timeouts = client.CoreV1Api.read_namespaced_pod_log, []

    def timed(*arguments: Any, **options: Any) -> Any:
        timeouts.append(options["_request_timeout"])
        return read(*arguments, **options)

    monkeypatch.setattr(client.CoreV1Api, "read_namespaced_pod_log", timed)
    pod(kube, "root.train-masker.executor", "Running", 1)
    kube.logs["wf-1"] = ["step 1\n", "step 2\n"]
    assert pipelines("logs", run_id).out == "step 1\n"
    assert pipelines("logs", run_id, "--follow").out == "step 1\nstep 2\n"
    connect_s, read_s = pipelines_kube.TIMEOUT_S
    assert timeouts == [(connect_s, read_s), (connect_s, None)]


def test_a_log_that_is_nowhere_is_said_with_the_way_to_the_ui(
    kube: KubeApi, kfp_server: KfpServer, pipelines: Cli, run_id: str
) -> None:
    page = f"or see {kfp_server.url}/#/runs/details/run-1\n"
    assert "no stage of the run has started" in pipelines("logs", run_id).err
    pod(kube, "root.train-masker.executor", "Succeeded", 1)
    other = pipelines("logs", run_id, "evaluate")
    assert other.code == 2
    assert "unknown stage 'evaluate'; stages of the run: fetch_dataset, prepare_clips" in other.err
    assert "predict: it is SKIPPED and has no log" in pipelines("logs", run_id, "predict").err
    node = task("train-masker", "SUCCEEDED", end="2026-01-01T00:00:09Z")
    kfp_server.stored["runs"]["run-1"]["run_details"] = {"task_details": [node]}
    del kube.logs["wf-1"]
    gone = pipelines("logs", run_id)
    assert gone.code == 2
    assert gone.err.endswith(f"error: train_masker: its pod was deleted, and its log is lost; {page}")


def test_without_kubernetes_the_logs_are_where_the_run_left_them(
    kfp_server: KfpServer, pipelines: Cli, run_id: str, s3: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    nodes = [task("wf-ab1cd", "FAILED"), task("wf-ab1cd(0)", "FAILED"), task("train-masker", "FAILED")]
    root = f"s3://{s3.bucket}/runs"
    kfp_server.stored["runs"]["run-1"] |= {
        "run_details": {"task_details": nodes},
        "runtime_config": {"pipeline_root": root},
    }
    nowhere = pipelines("logs", run_id)
    assert nowhere.code == 2
    assert "train_masker: its pod is not visible, and Kubeflow's archive has no log (" in nowhere.err
    assert "missing: no cluster configured (" in nowhere.err
    key = "runs/wf/run-1/train-masker/9d/executor-logs-0"
    s3.client.put_object(Bucket=s3.bucket, Key=key, Body=b"error: no more patience\n")
    kept = pipelines("logs", run_id)
    assert (kept.code, kept.out) == (0, "error: no more patience\n")
    assert kept.err == "train_masker, attempt 1, from the run's artifacts\n"
    stored = kfp_server.stored["runs"]["run-1"]
    labelled = {"exec-train-masker": {"podMetadata": {"labels": {"team": "a", "cost": "b"}}}}
    platforms = {"kubernetes": {"deploymentSpec": {"executors": labelled}}}
    with_labels = {"pipeline_spec": stored["pipeline_spec"], "platform_spec": {"platforms": platforms}}
    for spec, prefix in ((stored["pipeline_spec"], ""), (with_labels, "metadata-0-2-")):
        stored["pipeline_spec"] = spec
        templates = [f"{prefix}retry-system-container-impl", f"{prefix}system-container-impl"]
        assert executor_templates(spec) == templates
        for template in templates:
            kfp_server.archive.clear()
            kfp_server.archive[executor_name("wf-ab1cd", template, "train-masker", 0)] = "first\n"
            kfp_server.archive[executor_name("wf-ab1cd", template, "train-masker", 1)] = "second\n"
            assert pipelines("logs", run_id, "train-masker").out == "first\nsecond\n"
