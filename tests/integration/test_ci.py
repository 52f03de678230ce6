"""The jobs of docs/ci.md, each with the environment that it names and no other: no kubeconfig, no home."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.contract.test_ci_jobs import BLOCKS, scripts
from tests.integration.conftest import CLUSTER
from tests.integration.kfp_server import KfpServer, task

from maskcast.registry.store import Registry

ROOT = Path(__file__).resolve().parents[2]
GITHUB = yaml.safe_load(BLOCKS[0])["jobs"]["pipeline"]
GITLAB = yaml.safe_load(BLOCKS[1])["pipeline"]
OTHERS = ("pip", "gh", "curl")  # which would ask servers elsewhere


@pytest.mark.parametrize("job", [GITHUB, GITLAB], ids=["GitHub", "GitLab"])
def test_a_job_does_with_its_environment_what_it_says(
    job: dict[str, Any],
    kfp_server: KfpServer,
    server: str,
    programs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    Registry("maskcast").create("s3://mlflow/of-the-run", None, {})  # as a run does
    kfp_server.token = "token-of-the-job"
    finished = {"state": "SUCCEEDED", "finished_at": "2099-01-01T00:00:00Z"}
    kfp_server.script.append(finished | {"run_details": {"task_details": [task("train-masker", "SUCCEEDED")]}})
    folder, home, others = (tmp_path / name for name in ("checkout", "home", "others"))
    for made in (folder, home, others):
        made.mkdir()
    for name in ("dvc.yaml", "pipelines", "components", "params.yaml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "cluster.yaml").write_text(CLUSTER)
    for name in OTHERS:
        (others / name).write_text("#!/bin/sh\ncat > /dev/null\n")
        (others / name).chmod(0o755)
    values = {
        "KF_PIPELINES_ENDPOINT": kfp_server.url,
        "KF_PIPELINES_TOKEN": kfp_server.token,
        "MLFLOW_TRACKING_URI": server,
        "MLFLOW_TRACKING_USERNAME": "team",
        "MLFLOW_TRACKING_PASSWORD": "password-of-the-team",
    }
    assert values.keys() <= job.get("env", values).keys()
    path = os.pathsep.join(map(str, (others, programs, Path(sys.executable).parent, os.environ["PATH"])))
    environment = values | {"HOME": str(home), "PATH": path, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    lines = [line.replace("${{ github.event.number }}", "7") for line in scripts(job)]
    done = subprocess.run(
        ["bash", "-c", "\n".join(["set -eo pipefail", *lines])],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert kfp_server.only("runs")["state"] == "SUCCEEDED"
    table = " ".join(done.stdout.split())
    assert "not checked Kubernetes API no kubeconfig: ~/.kube/config does not exist -> set KUBECONFIG" in table, (
        table
    )
    assert (
        "not checked artifacts only pods have AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the secret" in table
    )
    assert f"ok MLflow {server}: version" in table, table
