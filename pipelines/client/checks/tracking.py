"""The MLflow server, by its REST API: it answers, knows you, and keeps runs and their files."""

import os
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from maskcast.errors import MaskcastError
from maskcast.runner.record import EXPERIMENT
from pipelines.client.checks import NotCheckedError, Row, Subject
from pipelines.client.checks.outside import must_be_known
from pipelines.client.checks.storage import write_and_remove
from pipelines.client.mlflow_api import MlflowApi

VARIABLE = "MLFLOW_TRACKING_URI"


def mlflow(subject: Subject) -> Iterator[Row]:
    """A run with a file can be made as stages make it; it is deleted at once."""
    given = {*subject.cluster.env, *(key for keys in subject.cluster.secrets.values() for key in keys)}
    if VARIABLE not in given:
        remedy = f"add {VARIABLE} to `env` of the cluster file"
        yield Row("MLflow", "failed", "pods know of no server: their runs would be lost with them", remedy)
        return
    must_be_known(VARIABLE)
    uri = os.environ.get(VARIABLE, "")
    if not uri.startswith(("http://", "https://")):
        raise NotCheckedError(f"{uri or VARIABLE}: only http:// and https:// can be checked from here")
    server = MlflowApi(uri)
    version = _version(server)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    experiment = server.experiment_id(name) or str(server.post("experiments/create", name=name)["experiment_id"])
    now = int(time.time() * 1000)
    run = server.post("runs/create", experiment_id=experiment, run_name="preflight", start_time=now)["run"]["info"]
    try:
        _keep_file(server, run["artifact_uri"])
    finally:
        server.post("runs/delete", run_id=run["run_id"])
    yield Row("MLflow", "ok", f"{server.shown}: version {version}, keeps runs and their files")


def _version(server: MlflowApi) -> str:
    answer = server.ask("GET", "/version")
    version: str = answer.text.strip()
    if not answer.ok or "<" in version:
        raise MaskcastError(f"{server.shown}: answers, but not as MLflow does; mend {VARIABLE}")
    return version


def _keep_file(server: MlflowApi, artifact_uri: str) -> None:
    """Writes a file where a run keeps its own, and removes it."""
    place = urlsplit(artifact_uri)
    if place.scheme == "mlflow-artifacts":
        path = f"/api/2.0/mlflow-artifacts/artifacts/{place.path.strip('/')}/preflight.txt"
        server.ask("PUT", path, data=b"written by preflight; may be removed")
        server.ask("DELETE", path)
    elif place.scheme == "s3":
        write_and_remove(artifact_uri)
    else:
        raise MaskcastError(
            f"{server.shown}: files of runs go to {artifact_uri}, where pods cannot write; "
            "start the server with --artifacts-destination"
        )
