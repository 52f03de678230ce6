"""The manifest of a TrainJob: like the pod that asks for it, and what Trainer's API has a place for."""

import copy
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from kubernetes import client

from maskcast.errors import MaskcastError
from maskcast.params import validate
from maskcast.runner import kube
from maskcast.runner.pod_status import WaitReporter
from maskcast.runner.trainjob import job_name, train_job
from pipelines.cluster import Cluster

POD: dict[str, Any] = {
    "metadata": {"name": "launcher", "namespace": "team", "uid": "1-2-3"},
    "spec": {
        "serviceAccountName": "runner",
        "nodeSelector": {"nvidia.com/gpu.product": "H200"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "workspace", "persistentVolumeClaim": {"claimName": "maskcast-workspace"}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}},
            {"name": "kube-api-access-x1", "projected": {"sources": []}},
        ],
        "containers": [
            {"name": "wait", "image": "argoexec"},
            {
                "name": "main",
                "image": "registry.example.com/maskcast@sha256:abc",
                "command": ["argoexec"],
                "resources": {"limits": {"cpu": "8", "nvidia.com/gpu": "4"}, "requests": {"cpu": "8"}},
                "securityContext": {"runAsNonRoot": True},
                "env": [
                    {"name": "KFP_POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "KFP_RUN_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['run']"}}},
                    {"name": "MASKCAST_RESUME_DIR", "value": "/workspace/resume"},
                    {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"},
                    {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "PASSWORD"}}},
                ],
                "volumeMounts": [
                    {"name": "workspace", "mountPath": "/workspace"},
                    {"name": "shared-memory", "mountPath": "/dev/shm"},
                    {"name": "kube-api-access-x1", "mountPath": "/var/run/secrets", "readOnly": True},
                ],
            },
        ],
    },
}


def made() -> dict[str, Any]:
    return train_job("maskcast-train-masker-0a", POD, ["torchrun", "-m", "maskcast"], nodes=3, processes=4)


def test_a_node_is_like_the_pod_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_RUN_ID", "run-7")
    job = made()
    (owner,) = job["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Pod", "launcher", "1-2-3")
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (3, 4)
    assert trainer["image"] == "registry.example.com/maskcast@sha256:abc"
    assert trainer["resourcesPerNode"] == POD["spec"]["containers"][1]["resources"]
    assert trainer["env"] == [
        {"name": "KFP_RUN_ID", "value": "run-7"},
        {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "PASSWORD"}}},
    ]
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["name"] == "node"
    pod = replicated["template"]["spec"]["template"]["spec"]
    for key in ("serviceAccountName", "imagePullSecrets"):
        assert pod[key] == POD["spec"][key]
    assert [volume["name"] for volume in pod["volumes"]] == ["workspace", "shared-memory"]
    (container,) = pod["containers"]
    assert container["name"] == "node"
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/workspace", "/dev/shm"]
    assert container["securityContext"] == {"runAsNonRoot": True}


def test_nodes_are_scheduled_by_the_cluster_file_and_not_as_kueue_placed_the_pod(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The pod that waits has no GPUs, and perhaps the labels and taints of its own flavor."""
    tolerations = [{"key": "gpu", "effect": "NoSchedule"}]
    gpu = {"gpus": 0, "gpu_type": "H200", "node_selector": {"zone": "a"}, "tolerations": tolerations}
    gpu["tolerations"][0]["operator"] = "Exists"
    resources = {"MASKCAST_NODE_RESOURCES": '{"nvidia.com/gpu": 8}'}
    file = validate(Cluster, {"image": "image", "pods": {"gpu": gpu}, "env": resources}, "")
    assert file.pods.gpu.labels == {"zone": "a"}
    assert file.scheduling_variables(file.pods.cpu) == {}
    ((name, value),) = file.scheduling_variables(file.pods.gpu).items()
    monkeypatch.setenv(name, value)
    spec = node_spec(made())
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "H200", "zone": "a"}
    assert spec["tolerations"] == tolerations
    own_gpu = {"image": "image", "pods": {"gpu": gpu | {"gpus": 1}}}
    without = validate(Cluster, own_gpu | {"env": {"MASKCAST_NODE_RESOURCES": '{"cpu": 8}'}}, "")
    assert '"nodeSelector": {"zone": "a"}' in without.scheduling_variables(without.pods.gpu)[name]
    monkeypatch.delenv(name)
    assert not {"nodeSelector", "tolerations"} & node_spec(made()).keys()


def node_spec(job: dict[str, Any]) -> dict[str, Any]:
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]["template"]["spec"]


def test_the_api_has_a_place_for_every_field() -> None:
    job = made()
    parsed = TrainerV1alpha1TrainJob.from_dict(job)
    assert parsed is not None
    assert json.loads(parsed.to_json()) == job


def test_nodes_may_ask_for_more_than_the_pod_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKCAST_NODE_RESOURCES", '{"cpu": 16, "nvidia.com/gpu": "8"}')
    limits = {"cpu": "16", "nvidia.com/gpu": "8"}
    assert made()["spec"]["trainer"]["resourcesPerNode"] == {"limits": limits, "requests": limits}


@pytest.mark.parametrize("text", ["cpu: 16", "[16]", "3"])
def test_resources_that_are_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MASKCAST_NODE_RESOURCES", text)
    with pytest.raises(MaskcastError, match=r"MASKCAST_NODE_RESOURCES: .* is not a JSON object; set limits"):
        made()


def test_a_job_is_admitted_by_the_queue_of_its_pod() -> None:
    labels = {"kueue.x-k8s.io/queue-name": "team-queue", "kueue.x-k8s.io/managed": "true", "app": "x"}
    queued = {**POD, "metadata": {**POD["metadata"], "labels": labels}}
    job = train_job("job-1", queued, ["torchrun"], nodes=2, processes=1)
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "team-queue"}
    assert "labels" not in made()["metadata"]


def test_a_job_and_its_nodes_have_the_labels_of_the_cluster_file(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = {"team": "vision", "sidecar.istio.io/inject": "true"}
    given = {"labels": labels, "annotations": {"karpenter.sh/do-not-disrupt": "true"}}
    file = validate(Cluster, {"image": "image", **given}, "")
    (variable,) = file.metadata_variables.items()
    monkeypatch.setenv(*variable)
    queue = {"kueue.x-k8s.io/queue-name": "team-queue"}
    queued = copy.deepcopy(POD)
    queued["metadata"]["labels"] = {**queue, "workflows.argoproj.io/workflow": "run"}
    queued["spec"]["containers"][1]["env"].append(dict(zip(("name", "value"), variable, strict=True)))
    job = train_job("job-1", queued, ["torchrun"], nodes=2, processes=1)
    assert job["metadata"]["labels"] == labels | queue
    (patch,) = job["spec"]["runtimePatches"]
    (replicated,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert replicated["template"]["spec"]["template"]["metadata"] == {
        "labels": {"team": "vision", "sidecar.istio.io/inject": "false"},  # ours: nodes talk to each other
        "annotations": given["annotations"],
    }
    assert variable[0] not in {each["name"] for each in job["spec"]["trainer"]["env"]}
    parsed = TrainerV1alpha1TrainJob.from_dict(job)
    assert parsed is not None
    assert json.loads(parsed.to_json()) == job


def test_what_holds_a_job_up_is_said_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unschedulable = client.V1PodCondition(
        type="PodScheduled",
        status="False",
        reason="Unschedulable",
        message="0/1 nodes are available: 1 Insufficient cpu. x",
    )
    pod = client.V1Pod(
        metadata=client.V1ObjectMeta(labels={kube.INDEX: "1"}),
        status=client.V1PodStatus(phase="Pending", conditions=[unschedulable]),
    )
    found = client.V1PodCondition(
        type="PodScheduled", status="True", last_transition_time=datetime.now(UTC) - timedelta(minutes=1)
    )
    creating = client.V1ContainerState(waiting=client.V1ContainerStateWaiting(reason="ContainerCreating"))
    container = client.V1ContainerStatus(
        name="node", image="maskcast", image_id="", ready=False, restart_count=0, state=creating
    )
    starting = client.V1Pod(
        metadata=client.V1ObjectMeta(name="job-1-node-0-0", labels={kube.INDEX: "0"}),
        status=client.V1PodStatus(phase="Pending", conditions=[found], container_statuses=[container]),
    )
    unmounted = client.CoreV1Event(
        involved_object=client.V1ObjectReference(),
        metadata=client.V1ObjectMeta(),
        reason="FailedMount",
        message="volume not found",
    )
    refused = client.CoreV1Event(
        involved_object=client.V1ObjectReference(),
        metadata=client.V1ObjectMeta(),
        reason="TrainJobResourcesCreationFailed",
        message="admission webhook denied the request",
    )
    asked: list[str] = []

    def list_events(namespace: str, field_selector: str, **_: Any) -> Any:
        asked.append(f"{namespace} {field_selector}")
        return SimpleNamespace(items=[unmounted if "node-0" in field_selector else refused])

    cluster = kube.PodNamespace(client.ApiClient(), "team")
    monkeypatch.setattr(cluster.core, "list_namespaced_event", list_events)
    suspended = {"type": "Suspended", "status": "True", "message": "waits for quota"}
    told = WaitReporter("TrainJob job-1", 0.0)
    for _ in range(2):
        job = {"status": {"conditions": [suspended]}}
        told.report_new(cluster._waiting_reasons("job-1", job, [starting, pod]))
    assert capsys.readouterr().err.splitlines() == [
        "TrainJob job-1: node 0 waits: containers are being created: FailedMount: volume not found",
        "TrainJob job-1: node 1 waits: unschedulable: 1 Insufficient cpu",
        "TrainJob job-1: Suspended is True: waits for quota",
        "TrainJob job-1: TrainJobResourcesCreationFailed: admission webhook denied the request",
    ]
    names = ["job-1-node-0-0", "job-1"]  # events of pods are asked for only where their containers are slow
    assert asked == [f"team involvedObject.name={name},type=Warning" for name in names] * 2
    WaitReporter("TrainJob job-1", 60.0).report_new(cluster._waiting_reasons("job-1", {}, [pod]))
    assert not capsys.readouterr().err  # it is only starting


def test_pods_of_a_stage_of_any_name_have_names_that_kubernetes_takes() -> None:
    """JobSet refuses longer ones, which is told of in events alone: the stage would wait."""
    names = {job_name(name, Path("/volume/resume", name)) for name in ("a" * 40, "a" * 39 + "b", "train_masker")}
    assert len(names) == 3
    for name in names:
        assert re.fullmatch("[a-z]([-a-z0-9]{0,61}[a-z0-9])?", f"{name}-node-0-999-abcde")
