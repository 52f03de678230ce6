"""Where MLflow keeps runs and models: the address, a client, and what of its refusals waiting does not mend.

The address and the credentials come from the environment (``MLFLOW_TRACKING_URI`` and friends). The embedded
default is ``mlflow.db`` and ``mlartifacts/`` in the working directory; of a DVC experiment in a temporary folder
(``dvc exp run --temp``, ``--queue``), in the workspace that it was started from.
"""

import logging
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from maskcast.errors import MaskcastError, chain_of, is_disk_full, one_line
from maskcast.memory import collector_paused
from maskcast.progress import told_when_late
from maskcast.redaction import has_user, redacted
from maskcast.runner.locks import sole_writer
from maskcast.runner.outputs import beside, remove

VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = b"SQLite format 3\0"  # how a database begins
# Codes of answers that another try may change: the server, or what stands before it, is not well.
PASSING = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}
    | {"RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED"}
)
# Errors of requests, by name, that are no loss of a connection.
LASTING = frozenset(
    {"SSLError", "InvalidURL", "InvalidSchema", "MissingSchema", "InvalidHeader", "InvalidProxyURL"}
    | {"TooManyRedirects"}
)
REFUSED_LOGIN = r"authentication failed|access denied|does not exist|unknown database|no pg_hba\.conf"
ACCOUNT = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
REMEDIES = {
    "UNAUTHENTICATED": ACCOUNT,
    "CUSTOMER_UNAUTHORIZED": ACCOUNT,
    "PERMISSION_DENIED": f"{ACCOUNT}; or ask an administrator of the server for this right",
    "ENDPOINT_NOT_FOUND": f"no MLflow server is there: mend {VARIABLE}",
}
PROXY = "mend HTTPS_PROXY, HTTP_PROXY or NO_PROXY, or see that the proxy is up"
TLS = (
    "write http:// where the server speaks no TLS, or set MLFLOW_TRACKING_SERVER_CERT_PATH to its authority's file"
)
SAID = 600  # characters of what MLflow says; it names the cause at its end
UPGRADE = "copy the database, then run `mlflow db upgrade` on it once"


def given(name: str) -> str | None:
    """Returns a variable of the environment.

    Raises:
        MaskcastError: it is set and empty, as a secret that is missing leaves it.
    """
    value = os.environ.get(name)
    if value is not None and not value.strip():
        raise MaskcastError(f"{name} is set and empty; unset it, or give it its value")
    return value


def tracking_uri() -> str:
    """Returns the server of the environment, or the embedded default.

    Raises:
        MaskcastError: what the environment names is no address.
    """
    uri = given(VARIABLE)
    if uri is None:
        return f"sqlite:///{embedded_folder() / 'mlflow.db'}"
    _check_address(uri)
    return uri


def shown_uri() -> str:
    """Returns the address without a user and password that may stand in it."""
    return redacted(tracking_uri())


def embedded_folder() -> Path:
    """Returns the folder of the embedded default: the working directory, or the one that it is a copy of.

    DVC copies the repository to ``<root of DVC>/.dvc/tmp/exps/<name>``, runs the experiment there and removes the
    copy; what is kept belongs into the folder that was copied.
    """
    here = Path.cwd()
    above = (here, *here.parents)
    copy = next((folder for folder in above if folder.parent.parts[-3:] == (".dvc", "tmp", "exps")), None)
    if copy is None:
        return here
    # DVC's root may lie below Git's, of which `copy` is a copy.
    root = next((folder for folder in above if (folder / ".dvc").is_dir() and folder.is_relative_to(copy)), copy)
    return copy.parents[3] / here.relative_to(root)


def new_client(*, query: bool = False) -> Any:
    """Returns an ``MlflowClient`` of runs and the registry that soon says when its server is away.

    Args:
        query: whether nothing is to be written; a database that is not there is then not made.

    Raises:
        MaskcastError: the address is none, a database has no place to be written to, is not there to ask, or its
            driver is not installed.
    """
    uri = tracking_uri()
    check_database(uri, query)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with collector_paused():
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not one line per table of a new database
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
    """Brings a folder of a run's files into another; returns where it lies there.

    Not by the client: where a download fails, that says to look at the path and not why.
    """
    from mlflow.artifacts import download_artifacts

    place = f"{client.get_run(run_id).info.artifact_uri}/{name}"
    with told_when_late(f"{name} of run {run_id} from {shown_uri()}"):
        return Path(download_artifacts(artifact_uri=place, dst_path=str(folder), tracking_uri=tracking_uri()))


def make_database() -> None:
    """Makes the embedded database where there is none, before processes that would wait for it begin at once.

    Raises:
        MaskcastError: it cannot be made.
    """
    if tracking_uri().startswith("sqlite:"):
        with user_errors_of_server():
            new_client()


@contextmanager
def user_errors_of_server() -> Iterator[None]:
    """Turns what MLflow, its database or the network raise into one MaskcastError."""
    try:
        yield
    except MaskcastError:
        raise
    except Exception as error:
        if not is_of_server(error):
            raise
        raise refusal(error) from error


def is_of_server(error: Exception) -> bool:
    """Tells whether MLflow, its database or the network raised an error."""
    from google.protobuf.json_format import ParseError  # of an answer that is JSON, and of another shape
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped]
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | RequestException | SQLAlchemyError | ParseError)


def is_away(error: BaseException) -> bool:
    """Tells whether waiting may mend an error: the line broke, or the server is not well (5xx)."""
    from mlflow.exceptions import MlflowException, RestException
    from requests import RequestException
    from sqlalchemy.exc import OperationalError

    if is_disk_full(error):  # of this machine: no server comes back to mend it
        return False
    for each in chain_of(error):
        if isinstance(each, RequestException):
            if LASTING & {kind.__name__ for kind in type(each).__mro__}:
                return False
            answer = each.response
            return answer is None or _passing(answer.status_code)
        if isinstance(each, OperationalError):
            return re.search(REFUSED_LOGIN, str(each), re.IGNORECASE) is None and not _is_sqlite(each)
    if isinstance(error, RestException):
        return error.error_code in PASSING
    if isinstance(error, MlflowException):
        status = re.search(r"failed with error code (\d{3})", str(error))
        return status is not None and _passing(int(status[1]))
    return isinstance(error, OSError)


def refusal(error: Exception) -> MaskcastError:
    """Returns what MLflow, its database or the network raised as one line with a remedy."""
    text = words_of(error)
    names = {type(each).__name__ for each in chain_of(error)}
    if "SSLError" in names:
        remedy = TLS
    elif "ProxyError" in names:
        remedy = PROXY
    elif "out-of-date database schema" in text:
        remedy = UPGRADE
    else:
        remedy = REMEDIES.get(getattr(error, "error_code", ""), f"mend that or {VARIABLE} and try again")
    return MaskcastError(f"{shown_uri()}: MLflow says: {text}; {remedy}")


def words_of(error: BaseException) -> str:
    """Returns what MLflow, its database or the network says, shortened; of a lost connection the cause alone.

    What urllib3 gave up on tells it behind an address that is longer than what is shown.
    """
    causes = (getattr(each, "reason", None) for each in chain_of(error))
    return one_line(next((cause for cause in causes if isinstance(cause, Exception)), error), SAID)


def is_missing(error: Exception) -> bool:
    """Tells whether MLflow says that something it was asked for by name is not there."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def bad_request(error: MaskcastError) -> Exception:
    """Returns an error as MLflow's model server tells it to a client, with status 400."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    return MlflowException(str(error), error_code=BAD_REQUEST)


def _check_address(uri: str) -> None:
    """Refuses what MLflow takes for another kind of address than was meant, or for none."""
    shown, (scheme, mark, rest) = redacted(uri), uri.partition("://")
    if uri.startswith(("databricks", "uc:")):
        return
    if re.search(r"\s", uri):
        raise MaskcastError(f"{VARIABLE} {shown!r}: has spaces; write one address")
    if uri.startswith(("file:", "/", ".", "~")):
        raise MaskcastError(
            f"{VARIABLE} {shown}: MLflow 3 keeps no runs in folders; write sqlite:////path/mlflow.db, or unset it"
        )
    if not mark:
        raise MaskcastError(
            f"{VARIABLE} {shown}: has no scheme; write http://{shown} or sqlite:////path/mlflow.db"
        )
    if scheme not in ("http", "https"):
        return
    if has_user(uri) and re.search("[/@?#]", rest.rpartition("@")[0]):
        raise MaskcastError(
            f"{VARIABLE} {shown}: its user or password holds / or @; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD instead"
        )
    try:
        place = urlsplit(uri)
        sound = bool(place.hostname) and (place.port is None or place.port > 0)
    except ValueError:
        sound = False
    if not sound:
        raise MaskcastError(f"{VARIABLE} {shown}: names no host and port; write {scheme}://host:port")


def database_file(uri: str) -> Path | None:
    """Returns the file of a database in a file, or None of another."""
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    if name == uri or name.startswith((":memory:", "file:")):
        return None
    return Path(name).absolute()


def check_database(uri: str, query: bool) -> None:
    """Fails at once where a database in a file cannot be used: MLflow would try for minutes.

    Args:
        uri: of a database in a file; of others nothing is checked.
        query: whether nothing is to be written.

    Raises:
        MaskcastError: it is not there to be queried, cannot be read or written, or is no database.
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
    """Makes a database whole or not at all: MLflow goes on with none that it was killed over.

    Of processes that begin at once one makes it, and the others wait; they would make its tables each.
    """
    with sole_writer(path, waits=True):
        if not _is_empty(path):
            return
        folder = beside(path)
        remove(folder)
        folder.mkdir()
        try:
            made = folder / f"{uuid.uuid4().hex}.db"  # MLflow never opens an address twice, be it another file's
            make_tables(made)
            made.replace(path)
        finally:
            remove(folder)


def make_tables(path: Path) -> None:
    """Lets MLflow make a database with its tables, which takes a second, in a file that is not there yet."""
    import mlflow

    with user_errors_of_server():
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)


def _passing(status: int) -> bool:
    return status >= 500 or status in (408, 429)


def _is_sqlite(error: BaseException) -> bool:
    """Whether a database in a file raised an error, and not because somebody else writes to it."""
    return type(getattr(error, "orig", None)).__module__ == "sqlite3" and "locked" not in str(error)
