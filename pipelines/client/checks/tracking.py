"""The MLflow server, by its REST API: it answers, knows you, and keeps runs and their files."""

import os
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests  # type: ignore[import-untyped]

from maskcast.errors import MaskcastError
from maskcast.redaction import redacted
from maskcast.runner.record import EXPERIMENT
from pipelines.client.checks import NotCheckedError, Row, Subject
from pipelines.client.checks.outside import must_be_known
from pipelines.client.checks.storage import write_and_remove

VARIABLE = "MLFLOW_TRACKING_URI"
TIMEOUT_S = (5, 10)  # to connect, to read


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
    server = _Server(uri)
    version = server.version()
    experiment = server.experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
    now = int(time.time() * 1000)
    run = server.post("runs/create", experiment_id=experiment, run_name="preflight", start_time=now)["run"]["info"]
    try:
        server.keep_file(run["artifact_uri"])
    finally:
        server.post("runs/delete", run_id=run["run_id"])
    yield Row("MLflow", "ok", f"{server.shown}: version {version}, keeps runs and their files")


class _Server:
    """What the check asks of a server."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self.shown = redacted(self._uri)  # a secret may hold an address with a password
        self._session = requests.Session()
        if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            self._session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self._session.headers["Authorization"] = f"Bearer {token}"

    def version(self) -> str:
        answer = self._ask("GET", "/version")
        version: str = answer.text.strip()
        if not answer.ok or "<" in version:
            raise MaskcastError(f"{self.shown}: answers, but not as MLflow does; mend {VARIABLE}")
        return version

    def experiment(self, name: str) -> str:
        """Returns the id of an experiment, which is created if need be."""
        path = "/api/2.0/mlflow/experiments/get-by-name"
        answer = self._ask("GET", path, params={"experiment_name": name})
        if answer.ok:
            return str(answer.json()["experiment"]["experiment_id"])
        return str(self.post("experiments/create", name=name)["experiment_id"])

    def post(self, path: str, **fields: Any) -> Any:
        return self._ask("POST", f"/api/2.0/mlflow/{path}", json=fields).json()

    def keep_file(self, artifact_uri: str) -> None:
        """Writes a file where a run keeps its own, and removes it."""
        place = urlsplit(artifact_uri)
        if place.scheme == "mlflow-artifacts":
            path = f"/api/2.0/mlflow-artifacts/artifacts/{place.path.strip('/')}/preflight.txt"
            self._ask("PUT", path, data=b"written by preflight; may be removed")
            self._ask("DELETE", path)
        elif place.scheme == "s3":
            write_and_remove(artifact_uri)
        else:
            raise MaskcastError(
                f"{self.shown}: files of runs go to {artifact_uri}, where pods cannot write; "
                "start the server with --artifacts-destination"
            )

    def _ask(self, method: str, path: str, **content: Any) -> Any:
        """Returns an answer of status 404 or below 400."""
        try:
            answer = self._session.request(method, f"{self._uri}{path}", timeout=TIMEOUT_S, **content)
        except requests.RequestException as error:
            raise MaskcastError(f"{self.shown}: MLflow does not answer ({error}); check that it is up") from None
        if answer.status_code in (401, 403):
            remedy = "check user, password and the server's --allowed-hosts"
            raise MaskcastError(
                f"{self.shown}: MLflow refuses ({answer.status_code}: {answer.text[:200]}); {remedy}"
            )
        if answer.status_code >= 400 and answer.status_code != 404:
            raise MaskcastError(
                f"{self.shown}: MLflow answers {answer.status_code} ({answer.text[:200]}); see the server's log"
            )
        return answer
