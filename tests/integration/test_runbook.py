"""The way of docs/runbook.md from an empty cluster to a finished run: every command that needs no real cluster."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from kubernetes import client
from tests.integration.conftest import S3
from tests.integration.kfp_server import KfpServer, task
from tests.integration.kube_api import KubeApi

ROOT = Path(__file__).resolve().parents[2]
CHAPTER = (ROOT / "docs/runbook.md").read_text().partition("## From an empty cluster")[2]
NS = "kubeflow-user"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", CHAPTER, re.DOTALL)


@pytest.fixture
def folder(
    tmp_path: Path, s3: S3, kube: KubeApi, kfp_server: KfpServer, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A checkout, and a cluster with the namespace, nodes and servers that the sample cluster file names."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("dvc.yaml", "pipelines", "components", "params.yaml"):
        (folder / name).symlink_to(ROOT / name)
    kube.put("namespaces", NS, status=client.V1NamespaceStatus(phase="Active"))
    (launcher,) = blocks("yaml")
    kube.put("configmaps", "kfp-launcher", NS, data=yaml.safe_load(launcher)["data"])
    s3.client.create_bucket(Bucket="maskcast")
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "team")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "password-of-the-team")
    monkeypatch.setenv(
        "PATH", os.pathsep.join(map(str, (programs, Path(sys.executable).parent, os.environ["PATH"])))
    )
    kfp_server.namespaces = {NS}
    finished = {"state": "SUCCEEDED", "finished_at": "2099-01-01T00:00:00Z"}
    kfp_server.script.append(finished | {"run_details": {"task_details": [task("train-masker", "SUCCEEDED")]}})
    pod = kube.put(
        "pods", "wf-1", NS, labels={"pipeline/runid": "run-1"}, status=client.V1PodStatus(phase="Succeeded")
    )
    pod.metadata.annotations = {"workflows.argoproj.io/node-name": "wf.root.train-masker.executor"}
    pod.metadata.creation_timestamp = datetime(2026, 1, 1, tzinfo=UTC)
    kube.logs["wf-1"] = ["trained\n"]
    return folder


def test_every_command_that_needs_no_real_cluster_works_in_its_order(folder: Path, kube: KubeApi) -> None:
    said = ""
    for block in blocks("bash"):
        lines = [line for line in block.replace("\\\n", "").splitlines() if "# by hand" not in line]
        script = "\n".join(["set -e", *lines])
        done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=800)
        said += done.stdout + done.stderr
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        if (file := folder / "cluster.yaml").exists():  # step 2: "change what differs: image, ..."
            file.write_text(file.read_text().replace("0" * 64, "ab" * 32))
        if claim := kube.get("persistentvolumeclaims", "maskcast-workspace", NS):
            claim.status = client.V1PersistentVolumeClaimStatus(phase="Bound", capacity={"storage": "50Gi"})
    assert said.count("s3://maskcast/runs is writable") == 2  # alone, and before submit
    assert "maskcast-runner has all 17 permissions" in said
    assert "\nrun-1\n" not in said  # the id of the run went into $run
    assert "trained\n" in said
    assert "password-of-the-team" not in said + (folder / "setup.yaml").read_text()


def test_commands_by_hand_are_those_that_need_the_real_thing() -> None:
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", "").splitlines()]
    by_hand = [line for line in lines if "# by hand" in line]
    assert by_hand
    for line in by_hand:
        assert re.match(r"(docker|kubectl|mlflow|export|read)\b", line), line
