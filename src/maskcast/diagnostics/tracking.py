"""Checks of MLflow: the server responds, accepts the credentials, and stores runs and their files."""

import os
import time
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

from maskcast.diagnostics.checks import CheckResult
from maskcast.diagnostics.mlflow_api import MlflowApi
from maskcast.errors import MaskcastError
from maskcast.reading import parsing
from maskcast.runner.mlflow_client import check_database, new_client
from maskcast.runner.mlflow_errors import check_server_version, convert_mlflow_errors
from maskcast.runner.mlflow_run import EXPERIMENT
from maskcast.runner.mlflow_uri import TRACKING_URI, database_file, is_server, redacted_uri, tracking_uri
from maskcast.storage.s3 import open_bucket

CONTENT = b"written by preflight; may be removed"


def mlflow() -> Iterator[CheckResult]:
    """Yields a row on MLflow: a server stores a test run, which is deleted; a database opens and is writable."""
    uri = tracking_uri()
    if is_server(uri):
        yield CheckResult(
            "MLflow", "ok", f"{redacted_uri()}: version {check_run_storage(uri)}, stores runs and their files"
        )
        return
    check_database(uri, read_only=False)
    path = database_file(uri)
    if path is not None and not path.exists():
        yield CheckResult("MLflow", "ok", f"{redacted_uri()}: does not exist yet, the first run creates it")
        return
    with convert_mlflow_errors():
        new_client(read_only=True).search_experiments(max_results=1)
    hint = f"; set {TRACKING_URI} to share runs" if TRACKING_URI not in os.environ else ""
    yield CheckResult("MLflow", "ok", f"{redacted_uri()}: can be opened and written{hint}")


def check_run_storage(uri: str) -> str:
    """Creates a test run with a file on a server, as stages do, and deletes both; returns the server's version.

    Raises:
        MaskcastError: if any of this fails.
    """
    server = MlflowApi(uri)
    version = _version(server)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    with parsing(server.shown, "a response of MLflow", f"fix {TRACKING_URI}"):
        experiment_id = server.experiment_id(name) or str(
            server.post("experiments/create", name=name)["experiment_id"]
        )
        now = int(time.time() * 1000)
        run = server.post("runs/create", experiment_id=experiment_id, run_name="preflight", start_time=now)["run"][
            "info"
        ]
        try:
            _check_file_storage(server, run["artifact_uri"])
        finally:
            server.post("runs/delete", run_id=run["run_id"])
    return version


def check_writable(uri: str) -> None:
    """Writes a small object below an S3 address, reads it back and removes it.

    Raises:
        MaskcastError: if any of this fails.
    """
    name = f"maskcast-preflight-{uuid4().hex}"
    with open_bucket(uri) as bucket:
        bucket.write(name, CONTENT)
        read = bucket.read(name)
        bucket.remove(name)
    _check_equal(uri, read)


def _version(server: MlflowApi) -> str:
    response = server.request("GET", "/version", allow_404=True)
    version: str = response.text.strip()
    if not response.ok or "<" in version:
        raise MaskcastError(f"{server.shown}: does not respond like an MLflow server; fix {TRACKING_URI}")
    check_server_version(server.shown, version)
    return version


def _check_file_storage(server: MlflowApi, artifact_uri: str) -> None:
    """Writes a test file to a run's artifact location, reads it back and removes it."""
    address = urlsplit(artifact_uri)
    if address.scheme == "mlflow-artifacts":
        path = f"/api/2.0/mlflow-artifacts/artifacts/{address.path.strip('/')}/preflight.txt"
        server.request("PUT", path, data=CONTENT)
        read = server.request("GET", path).content
        server.request("DELETE", path)
        _check_equal(server.shown, read)
    elif address.scheme == "s3":
        check_writable(artifact_uri)
    else:
        raise MaskcastError(
            f"{server.shown}: files of runs are stored in {artifact_uri}, which pods cannot write; "
            "start the server with --artifacts-destination"
        )


def _check_equal(place: str, read: bytes | None) -> None:
    if read != CONTENT:
        raise MaskcastError(f"{place}: data read back differs from data written; fix the server")
