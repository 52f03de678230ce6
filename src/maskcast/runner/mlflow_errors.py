"""Errors of MLflow, its database and the network: whether they are temporary, and messages with a remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from maskcast.errors import MaskcastError, exception_chain, is_disk_full, one_line
from maskcast.runner.mlflow_uri import TRACKING_URI, redacted_uri

# Codes of temporary errors of the server or of a proxy before it.
TEMPORARY_CODES = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED"}
    | {"RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED"}
)
# Errors of requests, by name, that do not mean a lost connection.
PERMANENT_ERRORS = frozenset(
    {"SSLError", "InvalidURL", "InvalidSchema", "MissingSchema", "InvalidHeader", "InvalidProxyURL"}
    | {"TooManyRedirects"}
)
MIN_SERVER = "3.1"  # version of MLflow's server; docs/decisions/2026-11-30-mlflow-servers.md says what was run
REFUSED_LOGIN = r"authentication failed|access denied|does not exist|unknown database|no pg_hba\.conf"
ACCOUNT = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
REMEDIES = {
    "UNAUTHENTICATED": ACCOUNT,
    "CUSTOMER_UNAUTHORIZED": ACCOUNT,
    "PERMISSION_DENIED": f"{ACCOUNT}; or ask an administrator of the server for this right",
    "ENDPOINT_NOT_FOUND": (
        f"no MLflow server at this address, or one older than {MIN_SERVER}; fix {TRACKING_URI}, or "
        "upgrade the server"
    ),
}
PROXY = "check that the proxy is running, and fix HTTPS_PROXY, HTTP_PROXY or NO_PROXY"
TLS = "use http:// if the server has no TLS, or set MLFLOW_TRACKING_SERVER_CERT_PATH to its CA certificate"
MAX_TEXT = 600  # characters of MLflow's message that are shown: enough to include the cause at its end
UPGRADE = "back up the database, then run `mlflow db upgrade` on it once"


def check_server_version(shown: str, version: str) -> None:
    """Checks the version that a server says it has; other text is not checked.

    Args:
        shown: address of the server, without a password.
        version: response of the server.

    Raises:
        MaskcastError: it is too old.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and tuple(map(int, found.groups())) < tuple(map(int, MIN_SERVER.split("."))):
        raise MaskcastError(
            f"{shown}: the MLflow server has version {version.strip()}, which is too old; upgrade it to "
            f"{MIN_SERVER} or later, or fix {TRACKING_URI}"
        )


@contextmanager
def convert_mlflow_errors() -> Iterator[None]:
    """A context that turns errors of MLflow, its database or the network into a MaskcastError."""
    try:
        yield
    except MaskcastError:
        raise
    except Exception as error:
        if not is_mlflow_error(error):
            raise
        raise user_error(error) from error


def is_mlflow_error(error: Exception) -> bool:
    """Whether MLflow, its database or the network raised an error."""
    from google.protobuf.json_format import ParseError  # raised for JSON with unexpected fields
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped]
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | RequestException | SQLAlchemyError | ParseError)


def is_temporary(error: BaseException) -> bool:
    """Whether an error may be temporary: a lost connection, or an error of the server (5xx)."""
    from mlflow.exceptions import MlflowException, RestException
    from requests import RequestException
    from sqlalchemy.exc import OperationalError

    if is_disk_full(error):  # the disk of this machine: waiting for a server does not help
        return False
    for each in exception_chain(error):
        if isinstance(each, RequestException):
            if PERMANENT_ERRORS & {kind.__name__ for kind in type(each).__mro__}:
                return False
            response = each.response
            return response is None or _is_temporary_status(response.status_code)
        if isinstance(each, OperationalError):
            return re.search(REFUSED_LOGIN, str(each), re.IGNORECASE) is None and not _is_sqlite(each)
    if isinstance(error, RestException):
        return error.error_code in TEMPORARY_CODES
    if isinstance(error, MlflowException):
        status = re.search(r"failed with error code (\d{3})", str(error))
        return status is not None and _is_temporary_status(int(status[1]))
    return isinstance(error, OSError)


def user_error(error: Exception) -> MaskcastError:
    """Converts an error of MLflow, its database or the network to one line with a remedy."""
    text = error_text(error)
    names = {type(each).__name__ for each in exception_chain(error)}
    if "SSLError" in names:
        remedy = TLS
    elif "ProxyError" in names:
        remedy = PROXY
    elif is_disk_full(error):
        of_database = (getattr(each, "orig", None) for each in exception_chain(error))
        text = str(next(filter(None, of_database), text))
        remedy = "free space on its disk, and run the same command again"
    elif "out-of-date database schema" in text:
        remedy = UPGRADE
    else:
        remedy = REMEDIES.get(getattr(error, "error_code", ""), f"fix the cause or {TRACKING_URI}, and try again")
    return MaskcastError(f"{redacted_uri()}: MLflow error: {text}; {remedy}")


def error_text(error: BaseException) -> str:
    """Returns the shortened message of an error; for a lost connection only the cause.

    In urllib3's message the cause follows an address, which alone may be longer than the part that is shown.
    """
    causes = (getattr(each, "reason", None) for each in exception_chain(error))
    return one_line(next((cause for cause in causes if isinstance(cause, Exception)), error), MAX_TEXT)


def is_not_found(error: Exception) -> bool:
    """Whether MLflow reports that a requested object does not exist."""
    return getattr(error, "error_code", "") in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def is_conflict(error: Exception) -> bool:
    """Whether MLflow could not write a row because another process had just written it.

    MLflow looks whether a tag or an alias exists before it writes it, so that the same request then succeeds.
    """
    code, text = getattr(error, "error_code", ""), str(error)
    return (
        code == "BAD_REQUEST" and re.search(r"unique constraint|duplicate entry", text, re.IGNORECASE) is not None
    )


def bad_request(error: MaskcastError) -> Exception:
    """Converts an error to one that MLflow's model server sends to a client with status 400."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    return MlflowException(str(error), error_code=BAD_REQUEST)


def _is_temporary_status(status: int) -> bool:
    return status >= 500 or status in (408, 429)


def _is_sqlite(error: BaseException) -> bool:
    """Whether SQLite raised an error other than a lock by another process."""
    return type(getattr(error, "orig", None)).__module__ == "sqlite3" and "locked" not in str(error)
