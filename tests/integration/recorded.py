"""Answers of a real cluster, put into the servers of the tests: what Kubeflow told of a run, and its pods."""

import json
from pathlib import Path
from typing import Any

from kubernetes import client
from tests.integration.kfp_server import KfpServer
from tests.integration.kube_api import KubeApi, path_of

NEEDS = {  # tasks of the pipeline that ran, each with those it depends on
    "fetch-dataset": [],
    "prepare-clips": ["fetch-dataset"],
    "pretrain-encoder": ["prepare-clips"],
    "train-masker": ["pretrain-encoder"],
    "generate-masks": ["train-masker"],
    "pretrain-forecaster": ["generate-masks"],
    "finetune-forecaster": ["pretrain-forecaster"],
    "evaluate": ["finetune-forecaster"],
    "predict": ["evaluate"],
    "register-models": ["predict"],
}
SPEC = {
    "root": {
        "dag": {
            "tasks": {
                task: {"taskInfo": {"name": task.replace("-", " ")}, "dependentTasks": needs}
                for task, needs in NEEDS.items()
            }
        }
    }
}


def play(folder: Path, name: str, kfp: KfpServer, kube: KubeApi) -> str:
    """Puts a recorded run and its pods into the servers and returns the run's id."""
    run = json.loads((folder / "cluster" / name / "run.json").read_text())
    reference = run["pipeline_version_reference"]
    kfp.stored["runs"][run["run_id"]] = run
    kfp.stored["versions"][reference["pipeline_version_id"]] = {"pipeline_spec": SPEC}
    kfp.stored["experiments"][run["experiment_id"]] = {
        "experiment_id": run["experiment_id"],
        "namespace": "team" if kfp.multi_user else "",
    }
    pods = folder / "cluster" / name / "pods.json"
    for each in json.loads(pods.read_text())["items"] if pods.exists() else []:
        put_pod(kube, each)
    return str(run["run_id"])


def put_pod(kube: KubeApi, pod: dict[str, Any], **metadata: Any) -> client.V1Pod:
    """Puts a recorded pod into the namespace of the tests."""
    pod["metadata"] |= {"namespace": "team", **metadata}
    for version in ("apiVersion", "kind"):
        pod.pop(version, None)
    made = client.ApiClient().deserialize(Answer(json.dumps(pod)), "V1Pod")
    kube.objects[path_of("pods", pod["metadata"]["name"], "team")] = made
    return made


class Answer:
    """What the client takes as an answer of the API."""

    def __init__(self, data: str) -> None:
        self.data = data
