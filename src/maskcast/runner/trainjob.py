"""Runs a stage on several nodes as a TrainJob of Kubeflow Trainer, modelled on the requesting pod.

Nodes have the pod's image, environment, volumes and service account, and the scheduling of the cluster file.
Fields that Trainer cannot patch come from its runtime ``torch-distributed``. Fields are those of Trainer 2.3;
``runtimePatches`` came with 2.2.

The pod needs a volume that all nodes share, with ``MASKCAST_RESUME_DIR`` on it. Inputs that lie elsewhere are
copied to it for the duration of the job. The nodes write outputs and checkpoints to it. The job is deleted when it
ends, when this process is stopped, and with its pod.
"""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from maskcast.errors import MaskcastError
from maskcast.runner.kube import GROUP, NODE, VERSION, Json, connect_in_cluster
from maskcast.runner.node_resources import NODE_RESOURCES, parse_node_resources
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import Job
from maskcast.stopping import raise_on_signals

RUNTIME = "torch-distributed"
COPIED = ("imagePullSecrets", "securityContext", "serviceAccountName")
QUEUE_LABELS = ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")
METADATA = "MASKCAST_POD_METADATA"  # labels and annotations of the cluster file, as JSON
# Node selector and tolerations of the cluster file, as JSON; the pod also has those that Kueue chose for the pod.
SCHEDULING = "MASKCAST_POD_SCHEDULING"
NOT_COPIED = ("ARGO_", "KFP_POD_", NODE_RESOURCES, METADATA, SCHEDULING, "MASKCAST_RESUME_DIR", "PET_")


def run_trainjob(job: Job, *, nodes: int, processes: int) -> dict[str, float]:
    """Runs a stage on nodes of this pod's cluster, shows the log of the first, and returns the metrics.

    Args:
        job: the stage.
        nodes: number of nodes.
        processes: on each node.

    Raises:
        MaskcastError: this is not a pod, it has no shared volume, the API rejects a request, or the job fails.
    """
    with raise_on_signals(), connect_in_cluster() as cluster:
        pod = cluster.this_pod()
        mounts = [mount.resolve() for mount in shared_mounts(pod)]
        work = resume_dir(next(iter(job.outputs.values()))).resolve()
        if not _is_inside(work, mounts):
            raise MaskcastError(
                f"training.nodes {nodes}: {work} is not on a volume that the nodes share; set `workspace` in the "
                "cluster file, or training.nodes to 1"
            )
        work.mkdir(parents=True, exist_ok=True)
        outputs = {port: work / "outputs" / port for port in job.outputs}
        with tempfile.TemporaryDirectory(prefix="inputs-", dir=work) as folder:
            inputs = {
                port: _shared_path(path.resolve(), mounts, Path(folder, port)) for port, path in job.inputs.items()
            }
            params_file = Path(folder, "params.yaml")
            params_file.write_text(yaml.safe_dump({job.name: dict(job.params)}), encoding="utf-8")
            command = [sys.executable, "-m", "torch.distributed.run", "-m", "maskcast", job.stage]
            command += ["--name", job.name]
            for flag, path in {"params": params_file, **inputs, **outputs}.items():
                command += [f"--{flag}", str(path)]
            cluster.run(train_job(job_name(job.name, work), pod, command, nodes=nodes, processes=processes))
        for port, path in outputs.items():
            shutil.move(path, job.outputs[port])
    return json.loads(job.outputs["metrics"].read_text(encoding="utf-8"))


def job_name(name: str, work: Path) -> str:
    """Returns the name of a stage's TrainJob; with `-node-0-999-abcde` appended it has at most 63 characters."""
    return f"maskcast-{name.replace('_', '-')[:28]}-{hashlib.sha256(str(work).encode()).hexdigest()[:8]}"


def train_job(name: str, pod: Json, command: Sequence[str], *, nodes: int, processes: int) -> Json:
    """Returns the TrainJob ``name``.

    Args:
        name: DNS label.
        pod: the pod of this process, as the API returns it; as the owner, it is deleted with the job.
        command: what torchrun runs on every node.
        nodes: number of nodes.
        processes: on each node.

    Raises:
        MaskcastError: MASKCAST_NODE_RESOURCES is not a JSON object.
    """
    container = main_container(pod)
    trainer = {
        "image": container["image"],
        "command": list(command),
        "numNodes": nodes,
        "numProcPerNode": processes,
        "resourcesPerNode": _resources(container),
        "env": [_resolved(each) for each in container.get("env", []) if not each["name"].startswith(NOT_COPIED)],
    }
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    pod_metadata: dict[str, dict[str, str]] = json.loads(os.environ.get(METADATA) or "{}")
    # Kueue admits the job by the same labels as the pod.
    pod_labels = pod["metadata"].get("labels", {})
    metadata: Json = {"name": name, "namespace": pod["metadata"]["namespace"], "ownerReferences": [owner]}
    admitted = {key: value for key, value in pod_labels.items() if key.startswith(QUEUE_LABELS)}
    if labels := pod_metadata.get("labels", {}) | admitted:
        metadata["labels"] = labels
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": trainer,
            "runtimePatches": [
                {"manager": "maskcast", "trainingRuntimeSpec": _patch(pod, container, pod_metadata)}
            ],
        },
    }


def main_container(pod: Json) -> Json:
    """Returns the container that this process runs in: ``main`` in a pod of Kubeflow Pipelines."""
    containers: list[Json] = pod["spec"]["containers"]
    return next((each for each in containers if each["name"] == "main"), containers[0])


def shared_mounts(pod: Json) -> list[Path]:
    """Returns the mount paths of volumes that nodes share with this process."""
    claims = {each["name"] for each in pod["spec"].get("volumes", []) if "persistentVolumeClaim" in each}
    return [Path(m["mountPath"]) for m in main_container(pod).get("volumeMounts", []) if m["name"] in claims]


def _resources(container: Json) -> Json:
    """Returns the resources of a node: ``MASKCAST_NODE_RESOURCES``, or those of this process's container."""
    limits = parse_node_resources(os.environ.get(NODE_RESOURCES))
    if limits is None:
        container_resources: Json = container.get("resources", {})
        return {key: container_resources[key] for key in ("limits", "requests") if key in container_resources}
    return {"limits": limits, "requests": limits}


def _resolved(variable: Mapping[str, Any]) -> Json:
    """Returns an environment variable for nodes: references to secrets stay, fields of this pod become values."""
    if "fieldRef" in variable.get("valueFrom", {}):
        return {"name": variable["name"], "value": os.environ.get(variable["name"], "")}
    return dict(variable)


def _patch(pod: Json, container: Json, pod_metadata: Mapping[str, Mapping[str, str]]) -> Json:
    # Kubernetes gives every pod its own token in a projected volume.
    volumes = [each for each in pod["spec"].get("volumes", []) if "projected" not in each]
    names = {each["name"] for each in volumes}
    node: Json = {
        "name": NODE,
        "volumeMounts": [each for each in container.get("volumeMounts", []) if each["name"] in names],
    }
    if "securityContext" in container:
        node["securityContext"] = container["securityContext"]
    spec = {key: pod["spec"][key] for key in COPIED if key in pod["spec"]}
    spec |= json.loads(os.environ.get(SCHEDULING) or "{}")
    spec |= {"volumes": volumes, "containers": [node]}
    # A sidecar of Istio would intercept the traffic between processes.
    metadata: Json = {"labels": {**pod_metadata.get("labels", {}), "sidecar.istio.io/inject": "false"}}
    if annotations := pod_metadata.get("annotations"):
        metadata["annotations"] = dict(annotations)
    pod_template = {"metadata": metadata, "spec": spec}
    job = {"name": NODE, "template": {"spec": {"template": pod_template}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def _is_inside(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _shared_path(path: Path, mounts: Sequence[Path], target: Path) -> Path:
    """Returns the path of an input for nodes: its own if it is shared, else that of a copy at ``target``."""
    if _is_inside(path, mounts):
        return path
    return Path(shutil.copytree(path, target) if path.is_dir() else shutil.copy(path, target))
