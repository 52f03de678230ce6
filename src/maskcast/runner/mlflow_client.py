"""A client for the MLflow server, and the database of the embedded default.

Credentials come from the environment (``MLFLOW_TRACKING_USERNAME`` and others) or ``~/.mlflow/credentials``.
"""

import logging
import os
import re
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.locks import exclusive_lock
from maskcast.memory import gc_paused
from maskcast.progress import log_if_slow
from maskcast.redaction import redacted
from maskcast.runner.dvc_lock import how_to_register
from maskcast.runner.mlflow_errors import check_server_version, convert_mlflow_errors
from maskcast.runner.mlflow_moved import present_location
from maskcast.runner.mlflow_uri import (
    TRACKING_URI,
    database_file,
    is_server,
    redacted_uri,
    sqlite_uri,
    tracking_uri,
)
from maskcast.runner.outputs import partial_path, remove

SQLITE = b"SQLite format 3\0"  # header of a database file


def new_client(*, read_only: bool = False) -> Any:
    """Returns an ``MlflowClient`` for runs and the registry, which fails fast if its server is unreachable.

    Args:
        read_only: whether access is read-only; then a missing database is not created.

    Raises:
        MaskcastError: the address is invalid, the server is too old, or a database cannot be created, does not
            exist for a query, or its driver is not installed.
    """
    uri = tracking_uri()
    check_database(uri, read_only)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # A server whose files are in S3 offers its clients addresses of S3, which often only the server can reach.
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD", "false")
    os.environ.setdefault("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "false")
    with gc_paused():
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else one line per table of a new database
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # else a traceback of what it raises
        if is_server(uri):
            _check_server(uri)
        path = database_file(uri)
        if path is not None and not read_only and _is_empty(path):
            _create_database(path.resolve())
        try:
            return mlflow.MlflowClient(uri)
        except ModuleNotFoundError as error:
            raise MaskcastError(
                f"{TRACKING_URI} {redacted(uri)}: needs the Python module {error.name}, which is not installed; "
                "install it, or use the address of an MLflow server, http://host:port"
            ) from None


def account() -> str | None:
    """Returns the user name of requests, of the environment or MLflow's credentials file; None without one."""
    from mlflow.utils.credentials import read_mlflow_creds

    name: str | None = read_mlflow_creds().username
    return name


def download_files(client: Any, run_id: str, name: str, folder: Path) -> Path:
    """Downloads a folder of a run's files into another folder; returns its path there.

    It does not use the client, which hides the cause of a failed download.
    """
    from mlflow.artifacts import download_artifacts

    artifact_uri = f"{present_location(client.get_run(run_id).info.artifact_uri)}/{name}"
    with log_if_slow(f"{name} of run {run_id} from {redacted_uri()}"):
        return Path(
            download_artifacts(artifact_uri=artifact_uri, dst_path=str(folder), tracking_uri=tracking_uri())
        )


def list_files(client: Any, run_id: str, folder: str) -> set[str]:
    """Returns the files in a folder of a run's files and below it, by path below the run's files.

    Raises:
        Exception: what MLflow raises; e.g. the run does not exist.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    # The client's own `list_artifacts` asks a server six times for each folder, mostly about models of the run.
    location = present_location(client.get_run(run_id).info.artifact_uri)
    repository = get_artifact_repository(location, tracking_uri=tracking_uri())

    def files_below(path: str) -> set[str]:
        entries = repository.list_artifacts(path)
        below = (files_below(each.path) for each in entries if each.is_dir)
        return {each.path for each in entries if not each.is_dir}.union(*below)

    return files_below(folder)


def create_database() -> None:
    """Creates the embedded database if it does not exist, before processes that need it start at the same time.

    Raises:
        MaskcastError: it cannot be created.
    """
    if tracking_uri().startswith("sqlite:"):
        with convert_mlflow_errors():
            new_client()


def check_database(uri: str, read_only: bool) -> None:
    """Fails at once if an SQLite database cannot be used, because MLflow would retry for minutes.

    Args:
        uri: of the database; only SQLite is checked.
        read_only: whether access is read-only.

    Raises:
        MaskcastError: it does not exist for a query, cannot be read or written, or is not a database, or MLflow
            cannot use its path.
    """
    path = database_file(uri)
    if path is None:
        return
    if re.search("[%?]", str(path)):  # MLflow does not decode the path whose folder it makes
        raise MaskcastError(
            f"{path}: MLflow cannot use a path with % or ?; rename the folder, or set {TRACKING_URI} to another "
            "database or a server"
        )
    if read_only and not path.is_file():
        raise MaskcastError(
            f"no models: {redacted(uri)} does not exist; {how_to_register()}, change to the folder where the "
            f"pipeline ran, or set {TRACKING_URI}"
        )
    try:
        if not read_only:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        if path.exists():
            with path.open("rb" if read_only else "r+b") as file:
                is_database = file.read(len(SQLITE)) in (SQLITE, b"")
            if not is_database:
                raise MaskcastError(f"{path}: not an SQLite database; remove it, or set {TRACKING_URI} to another")
    except OSError as error:
        access = "read" if read_only else "written"
        raise MaskcastError(
            f"{path}: cannot be {access} ({error.strerror}); set {TRACKING_URI} to another database, or change to "
            "another folder"
        ) from None


@cache
def _check_server(uri: str) -> None:
    """Checks the version of a server once per process; one that does not tell it is left to later requests."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    with log_if_slow(f"a response of {redacted(uri)}"):  # the first request of a process
        response = http_request(get_default_host_creds(uri), "/version", "GET", raise_on_status=False)
    if response.ok:
        check_server_version(redacted(uri), response.text)


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _create_database(path: Path) -> None:
    """Creates a database atomically, because MLflow cannot use one whose creation was interrupted.

    If several processes start at the same time, one creates it and the others wait, so that tables are created
    once.
    """
    with exclusive_lock(path, blocking=True):
        if not _is_empty(path):
            return
        folder = partial_path(path)
        remove(folder)
        folder.mkdir()
        try:
            database = folder / f"{uuid.uuid4().hex}.db"  # a new name, as MLflow caches its engine by address
            create_tables(database)
            database.replace(path)
        finally:
            remove(folder)


def create_tables(path: Path) -> None:
    """Creates a database with MLflow's tables in a new file, which takes a second."""
    import mlflow

    with convert_mlflow_errors():
        mlflow.MlflowClient(sqlite_uri(path)).search_experiments(max_results=1)
