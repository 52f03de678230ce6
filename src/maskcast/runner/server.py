"""A client for the MLflow server, and the database of the embedded default.

Credentials come from the environment (``MLFLOW_TRACKING_USERNAME`` and others).
"""

import logging
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.memory import collector_paused
from maskcast.progress import log_if_slow
from maskcast.redaction import redacted
from maskcast.runner.address import VARIABLE, database_file, shown_uri, tracking_uri
from maskcast.runner.locks import sole_writer
from maskcast.runner.outputs import beside, remove
from maskcast.runner.refusals import user_errors_of_server

SQLITE = b"SQLite format 3\0"  # header of a database file


def new_client(*, query: bool = False) -> Any:
    """Returns an ``MlflowClient`` for runs and the registry, which soon reports if its server is away.

    Args:
        query: whether access is read-only; then a missing database is not created.

    Raises:
        MaskcastError: the address is invalid, a database cannot be created, does not exist for a query, or its
            driver is not installed.
    """
    uri = tracking_uri()
    check_database(uri, query)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with collector_paused():
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # else one line per table of a new database
        path = database_file(uri)
        if path is not None and not query and _is_empty(path):
            _make_database(path.resolve())
        try:
            return mlflow.MlflowClient(uri)
        except ModuleNotFoundError as error:
            raise MaskcastError(
                f"{VARIABLE} {redacted(uri)}: needs the Python module {error.name}, which is not installed; "
                "install it, or give the address of an MLflow server, http://host:port"
            ) from None


def download_files(client: Any, run_id: str, name: str, folder: Path) -> Path:
    """Downloads a folder of a run's files into another folder; returns its path there.

    It does not use the client, which hides the cause of a failed download.
    """
    from mlflow.artifacts import download_artifacts

    place = f"{client.get_run(run_id).info.artifact_uri}/{name}"
    with log_if_slow(f"{name} of run {run_id} from {shown_uri()}"):
        return Path(download_artifacts(artifact_uri=place, dst_path=str(folder), tracking_uri=tracking_uri()))


def make_database() -> None:
    """Creates the embedded database if there is none, before processes that need it start at the same time.

    Raises:
        MaskcastError: it cannot be created.
    """
    if tracking_uri().startswith("sqlite:"):
        with user_errors_of_server():
            new_client()


def check_database(uri: str, query: bool) -> None:
    """Fails at once if an SQLite database cannot be used, because MLflow would retry for minutes.

    Args:
        uri: of the database; only SQLite is checked.
        query: whether access is read-only.

    Raises:
        MaskcastError: it does not exist for a query, cannot be read or written, or is not a database.
    """
    path = database_file(uri)
    if path is None:
        return
    if query and not path.is_file():
        raise MaskcastError(
            f"no models: looked in {redacted(uri)}, which is not there; run the pipeline, go to the folder where "
            f"it ran, or set {VARIABLE}"
        )
    try:
        if not query:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        if path.exists():
            with path.open("rb" if query else "r+b") as file:
                sound = file.read(len(SQLITE)) in (SQLITE, b"")
            if not sound:
                raise MaskcastError(f"{path}: is no database; remove it, or set {VARIABLE} to another place")
    except OSError as error:
        doing = "read" if query else "written"
        raise MaskcastError(
            f"{path}: cannot be {doing} ({error.strerror}); set {VARIABLE} to another place, or go elsewhere"
        ) from None


def _is_empty(path: Path) -> bool:
    return not path.exists() or path.stat().st_size == 0


def _make_database(path: Path) -> None:
    """Creates a database atomically, because MLflow cannot use one whose creation was interrupted.

    If several processes start at the same time, one creates it and the others wait, so that tables are created
    once.
    """
    with sole_writer(path, waits=True):
        if not _is_empty(path):
            return
        folder = beside(path)
        remove(folder)
        folder.mkdir()
        try:
            made = folder / f"{uuid.uuid4().hex}.db"  # a new name, as MLflow caches its engine by address
            make_tables(made)
            made.replace(path)
        finally:
            remove(folder)


def make_tables(path: Path) -> None:
    """Lets MLflow create a database with its tables in a new file, which takes a second."""
    import mlflow

    with user_errors_of_server():
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
