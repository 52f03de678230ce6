"""A stage on several nodes: a TrainJob of Kubeflow Trainer, made after the pod that asks for it.

A node is like that pod: same image, environment, volumes, account and place. What Trainer takes no patch for comes
from its runtime ``torch-distributed``. Fields as of Trainer 2.3; ``runtimePatches`` came with 2.2.

The pod needs a volume that all nodes see, with ``MASKCAST_RESUME_DIR`` on it. Inputs that lie elsewhere are copied
there for the length of the job; the nodes write outputs and checkpoints there. The job is deleted when it ends,
when this process is stopped, and with its pod.
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
from maskcast.runner.kube import GROUP, NODE, VERSION, Json, own_cluster
from maskcast.runner.outputs import resume_dir
from maskcast.runner.stage import Job
from maskcast.stopping import stopped_by_signals

RUNTIME = "torch-distributed"
COPIED = ("imagePullSecrets", "nodeSelector", "securityContext", "serviceAccountName", "tolerations")
QUEUE_LABELS = ("kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class")
METADATA = "MASKCAST_POD_METADATA"  # labels and annotations of the cluster file, as JSON
NOT_COPIED = ("ARGO_", "KFP_POD_", "MASKCAST_NODE_RESOURCES", METADATA, "MASKCAST_RESUME_DIR", "PET_")


def run_trainjob(job: Job, *, nodes: int, processes: int) -> dict[str, float]:
    """Runs a stage on nodes of this pod's cluster, shows the log of the first, and returns the metrics.

    Args:
        job: the stage.
        nodes: number of nodes.
        processes: on each node.

    Raises:
        MaskcastError: this is no pod, it has no volume that nodes share, the API refuses, or the job fails.
    """
    with stopped_by_signals(), own_cluster() as cluster:
        pod = cluster.own_pod()
        mounts = [mount.resolve() for mount in shared_mounts(pod)]
        work = resume_dir(next(iter(job.outputs.values()))).resolve()
        if not _is_below(work, mounts):
            raise MaskcastError(
                f"training.nodes {nodes}: {work} is on no volume that nodes share; set `workspace` in the file of "
                "the cluster, or training.nodes to 1"
            )
        work.mkdir(parents=True, exist_ok=True)
        written = {port: work / "outputs" / port for port in job.outputs}
        with tempfile.TemporaryDirectory(prefix="inputs-", dir=work) as folder:
            seen = {port: _shared(path.resolve(), mounts, Path(folder, port)) for port, path in job.inputs.items()}
            params_file = Path(folder, "params.yaml")
            params_file.write_text(yaml.safe_dump({job.name: dict(job.params)}), encoding="utf-8")
            command = [sys.executable, "-m", "torch.distributed.run", "-m", "maskcast", job.stage]
            command += ["--name", job.name]
            for flag, path in {"params": params_file, **seen, **written}.items():
                command += [f"--{flag}", str(path)]
            cluster.run(train_job(title(job.name, work), pod, command, nodes=nodes, processes=processes))
        for port, path in written.items():
            shutil.move(path, job.outputs[port])
    return json.loads(job.outputs["metrics"].read_text(encoding="utf-8"))


def title(name: str, work: Path) -> str:
    """Returns what the TrainJob of a stage is called: with `-node-0-999-abcde` behind it, a pod's name of 63."""
    return f"maskcast-{name.replace('_', '-')[:28]}-{hashlib.sha256(str(work).encode()).hexdigest()[:8]}"


def train_job(name: str, pod: Json, command: Sequence[str], *, nodes: int, processes: int) -> Json:
    """Returns the TrainJob ``name``.

    Args:
        name: DNS label.
        pod: the pod of this process, as the API shows it; it becomes the owner, so that the job goes with it.
        command: what torchrun runs on every node.
        nodes: their number.
        processes: on each node.

    Raises:
        MaskcastError: MASKCAST_NODE_RESOURCES is no JSON object.
    """
    container = own_container(pod)
    trainer = {
        "image": container["image"],
        "command": list(command),
        "numNodes": nodes,
        "numProcPerNode": processes,
        "resourcesPerNode": _resources(container),
        "env": [_resolved(each) for each in container.get("env", []) if not each["name"].startswith(NOT_COPIED)],
    }
    owner = {"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
    given: dict[str, dict[str, str]] = json.loads(os.environ.get(METADATA) or "{}")
    # Kueue admits the job by the labels that the pod was admitted by.
    own = pod["metadata"].get("labels", {})
    metadata: Json = {"name": name, "namespace": pod["metadata"]["namespace"], "ownerReferences": [owner]}
    admitted = {key: value for key, value in own.items() if key.startswith(QUEUE_LABELS)}
    if labels := given.get("labels", {}) | admitted:
        metadata["labels"] = labels
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"name": RUNTIME},
            "trainer": trainer,
            "runtimePatches": [{"manager": "maskcast", "trainingRuntimeSpec": _patch(pod, container, given)}],
        },
    }


def own_container(pod: Json) -> Json:
    """Returns the container that this process runs in: ``main`` in a pod of Kubeflow Pipelines."""
    containers: list[Json] = pod["spec"]["containers"]
    return next((each for each in containers if each["name"] == "main"), containers[0])


def shared_mounts(pod: Json) -> list[Path]:
    """Returns where this process sees volumes that every node sees too."""
    claims = {each["name"] for each in pod["spec"].get("volumes", []) if "persistentVolumeClaim" in each}
    return [Path(m["mountPath"]) for m in own_container(pod).get("volumeMounts", []) if m["name"] in claims]


def _resources(container: Json) -> Json:
    """Returns what a node asks for: ``MASKCAST_NODE_RESOURCES``, or what this process's container does."""
    text = os.environ.get("MASKCAST_NODE_RESOURCES")
    if not text:
        own: Json = container.get("resources", {})
        return {key: own[key] for key in ("limits", "requests") if key in own}
    try:
        limits = json.loads(text)
        if not isinstance(limits, dict):
            raise TypeError
    except (ValueError, TypeError):
        raise MaskcastError(
            f"MASKCAST_NODE_RESOURCES: {text!r} is no JSON object; write limits such as "
            '{"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "8"}'
        ) from None
    limits = {resource: str(amount) for resource, amount in limits.items()}
    return {"limits": limits, "requests": limits}


def _resolved(variable: Mapping[str, Any]) -> Json:
    """Returns a variable as it is, keys of secrets by name; a field of this pod becomes its value."""
    if "fieldRef" in variable.get("valueFrom", {}):
        return {"name": variable["name"], "value": os.environ.get(variable["name"], "")}
    return dict(variable)


def _patch(pod: Json, container: Json, given: Mapping[str, Mapping[str, str]]) -> Json:
    # A projected volume holds the token that Kubernetes gives every pod anew.
    volumes = [each for each in pod["spec"].get("volumes", []) if "projected" not in each]
    names = {each["name"] for each in volumes}
    node: Json = {
        "name": NODE,
        "volumeMounts": [each for each in container.get("volumeMounts", []) if each["name"] in names],
    }
    if "securityContext" in container:
        node["securityContext"] = container["securityContext"]
    spec = {key: pod["spec"][key] for key in COPIED if key in pod["spec"]}
    spec |= {"volumes": volumes, "containers": [node]}
    # A sidecar of Istio would stand between the processes.
    metadata: Json = {"labels": {**given.get("labels", {}), "sidecar.istio.io/inject": "false"}}
    if annotations := given.get("annotations"):
        metadata["annotations"] = dict(annotations)
    pod_template = {"metadata": metadata, "spec": spec}
    job = {"name": NODE, "template": {"spec": {"template": pod_template}}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _shared(path: Path, mounts: Sequence[Path], place: Path) -> Path:
    """Returns where nodes see an input: where it is, or a copy at ``place``."""
    if _is_below(path, mounts):
        return path
    return Path(shutil.copytree(path, place) if path.is_dir() else shutil.copy(path, place))
