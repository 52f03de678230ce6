"""The rows of preflight about Kubeflow Pipelines: that it answers, is new enough, and what it does with pods."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.conftest import Done
from tests.integration.kfp_server import KfpServer
from tests.integration.kube_api import KubeApi

Cli = Callable[..., Done]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(ROOT)


def stock(folder: Path) -> dict[str, Any]:
    """Returns the configuration that a stock Kubeflow has, as recorded."""
    found: dict[str, Any] = json.loads((folder / "cluster/workflow-controller-configmap.json").read_text())
    return found["data"]


def test_it_answers_and_knows_you(kfp_server: KfpServer, kube: KubeApi, pipelines: Cli) -> None:
    table = pipelines("preflight").out
    assert f"{kfp_server.url}: version 2.17.0, you can list runs in team, pipelines in its database" in table
    kfp_server.token = "right"
    refused = pipelines("preflight")
    assert refused.code == 1
    assert "the credentials are missing, wrong or expired" in refused.out


def test_an_older_one_fails(kfp_server: KfpServer, kube: KubeApi, pipelines: Cli) -> None:
    kfp_server.health |= {"tag_name": "2.5.0", "pipeline_store": "kubernetes"}
    older = pipelines("preflight")
    assert older.code == 1
    assert "version 2.5.0, you can list runs in team, pipelines in its kubernetes; kfp here is 2.17.0" in older.out
    assert "upgrade Kubeflow Pipelines to 2.17.0" in older.out


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("OnError", "a lost pod is restarted, but not a stage that failed with an exit code (OnError)"),
        ("Always", "a lost pod is restarted, and so is a failed stage (Always)"),
        ("OnFailure", "a failed stage is restarted (OnFailure)"),
    ],
)
def test_what_retries_do_is_read_from_the_configuration_of_argo(
    shared_data: Path, kfp_server: KfpServer, kube: KubeApi, pipelines: Cli, policy: str, said: str
) -> None:
    data = stock(shared_data)
    assert "retryPolicy: OnError" in data["workflowDefaults"]
    data["workflowDefaults"] = data["workflowDefaults"].replace("OnError", policy)
    kube.put("configmaps", "workflow-controller-configmap", "kubeflow", data=data)
    table = pipelines("preflight").out
    assert said in table
    assert ("retryPolicy: Always" in table) == (policy == "OnError")
    assert "an ended run keeps its pods for 60 min" in table


def test_a_configuration_that_cannot_be_read_is_not_checked(
    kube: KubeApi, kfp_server: KfpServer, pipelines: Cli
) -> None:
    assert "ConfigMap workflow-controller-configmap in namespace kubeflow not found" in pipelines("preflight").out
    kube.refused["GET .*/namespaces/kubeflow/configmaps"] = 403
    refused = pipelines("preflight").out
    assert "no permission to read ConfigMap workflow-controller-configmap in namespace kubeflow" in refused
    assert "`maskcast pipeline retry RUN` restarts a run from where it ended" in refused


def test_several_nodes_need_the_runtime_of_trainer(kube: KubeApi, pipelines: Cli, tmp_path: Path) -> None:
    assert "not needed: every stage runs in one pod" in pipelines("preflight").out
    nodes = ("-S", "train_masker.training.nodes=2")
    assert (
        "train_masker: ClusterTrainingRuntime 'torch-distributed' not found" in pipelines("preflight", *nodes).out
    )
    kube.objects["/apis/trainer.kubeflow.org/v1alpha1/clustertrainingruntimes/torch-distributed"] = {}
    assert "torch-distributed, for the nodes of train_masker\n" in pipelines("preflight", *nodes).out
    text = (tmp_path / "cluster.yaml").read_text().replace("workspace}", "workspace, access_mode: ReadWriteOnce}")
    resources = '{"cpu": "900", "nvidia.com/gpu": "1"}'
    (tmp_path / "cluster.yaml").write_text(
        text.replace("env: {", f"env: {{MASKCAST_NODE_RESOURCES: '{resources}', ")
    )
    table = pipelines("preflight", *nodes).out
    assert "nodes of train_masker; all must run on one machine, as the workspace is ReadWriteOnce" in table
    assert "train_masker (nodes): none of " in table


def test_a_queue_that_is_named_must_be_there(kube: KubeApi, pipelines: Cli, tmp_path: Path) -> None:
    with (tmp_path / "cluster.yaml").open("a") as file:
        file.write("queue: team-queue\n")
    absent = pipelines("preflight")
    assert absent.code == 1
    assert "LocalQueue 'team-queue' not found in team" in absent.out
    path = "/apis/kueue.x-k8s.io/v1beta1/namespaces/team/localqueues/team-queue"
    kube.objects[path] = {"spec": {"clusterQueue": "gpus"}}
    assert "team-queue, of gpus" in pipelines("preflight").out
