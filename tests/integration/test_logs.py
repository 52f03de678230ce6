"""logs: of which stage, from which pod, and what it says when there is none."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kubernetes import client
from tests.integration.conftest import Done
from tests.integration.kfp_server import KfpServer
from tests.integration.kube_api import KubeApi

from pipelines.client import kube as pipelines_kube

Cli = Callable[..., Done]
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def run_id(kfp_server: KfpServer) -> str:
    names = {
        task: task.replace("-", " ") for task in ("fetch-dataset", "prepare-clips", "generate-masks", "predict")
    }
    names |= {"train-masker": "train masker", "train-masker-2": "second masker"}
    spec = {"root": {"dag": {"tasks": {task: {"taskInfo": {"name": name}} for task, name in names.items()}}}}
    kfp_server.stored["runs"]["run-1"] = {"run_id": "run-1", "state": "FAILED", "pipeline_spec": spec}
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
    assert last.err == "train_masker, pod wf-4 (Running)\n"
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


def test_of_several_attempts_the_last_is_printed(kube: KubeApi, pipelines: Cli, run_id: str) -> None:
    pod(kube, "root(0).train-masker(0).executor(0)", "Failed", 1)
    pod(kube, "root(0).train-masker(0).executor(1)", "Running", 2)
    assert pipelines("logs", run_id, "train_masker").out == "root(0).train-masker(0).executor(1) says\n"


def test_a_log_is_followed_while_the_stage_is_silent(
    kube: KubeApi, pipelines: Cli, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines_kube, "TIMEOUT_S", (5, 0.1))
    pod(kube, "root.train-masker.executor", "Running", 1)
    kube.logs["wf-1"] = ["step 1\n", "step 2\n"]
    assert pipelines("logs", run_id).out == "step 1\n"
    assert pipelines("logs", run_id, "--follow").out == "step 1\nstep 2\n"


def test_a_pod_that_is_gone_is_said_with_the_way_to_the_ui(
    kube: KubeApi, kfp_server: KfpServer, pipelines: Cli, run_id: str
) -> None:
    page = f"or see {kfp_server.url}/#/runs/details/run-1\n"
    assert "no pod of any stage (only of: none)" in pipelines("logs", run_id).err
    pod(kube, "root.train-masker.executor", "Succeeded", 1)
    other = pipelines("logs", run_id, "evaluate")
    assert other.code == 2
    assert "no pod of evaluate (only of: train_masker)" in other.err
    del kube.logs["wf-1"]
    gone = pipelines("logs", run_id)
    assert gone.code == 2
    assert gone.err.endswith(f"error: pod wf-1 is gone by now; {page}")


def test_what_kubernetes_refuses_is_one_line(
    kube: KubeApi, pipelines: Cli, run_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kube.refused["GET .*/pods$"] = 403
    refused = pipelines("logs", run_id)
    assert refused.code == 2
    assert "is forbidden" in refused.err
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    nowhere = pipelines("logs", run_id)
    assert nowhere.code == 2
    assert "set KUBECONFIG" in nowhere.err
    assert nowhere.err.count("\n") == 1
