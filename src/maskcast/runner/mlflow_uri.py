"""The address of the MLflow server that keeps runs and models.

It comes from the environment (``MLFLOW_TRACKING_URI``). The embedded default is ``mlflow.db`` and ``mlartifacts/``
in the working directory. A DVC experiment in a temporary folder (``dvc exp run --temp``, ``--queue``) uses the
workspace from which it was started.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from maskcast.errors import MaskcastError
from maskcast.redaction import has_user, redacted

TRACKING_URI, TRACKING_TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"
# Without this, MLflow sends telemetry to its vendor on import.
TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
os.environ.setdefault(TELEMETRY, "true")


def env_value(name: str) -> str | None:
    """Returns an environment variable, or None if it is not set.

    Raises:
        MaskcastError: it is set but empty, as happens with a missing secret.
    """
    value = os.environ.get(name)
    if value is not None and not value.strip():
        raise MaskcastError(f"{name} is set but empty; unset it, or set its value")
    return value


def tracking_uri() -> str:
    """Returns the address in the environment, or the embedded default.

    Raises:
        MaskcastError: the environment has an invalid address.
    """
    uri = env_value(TRACKING_URI)
    if uri is None:
        return sqlite_uri(default_folder() / "mlflow.db")
    _check_address(uri)
    return uri


def is_server(uri: str) -> bool:
    """Whether an address is that of an MLflow server, not of a database."""
    return uri.startswith(("http://", "https://"))


def redacted_uri() -> str:
    """Returns the address without a user name and password."""
    return redacted(tracking_uri())


def default_folder() -> Path:
    """Returns the folder of the embedded default: the working directory, or the workspace it was copied from.

    DVC copies the repository to ``<root of DVC>/.dvc/tmp/exps/<name>``, runs the experiment there and removes the
    copy. So the database must be in the original folder.
    """
    here = Path.cwd()
    above = (here, *here.parents)
    copy = next((folder for folder in above if folder.parent.parts[-3:] == (".dvc", "tmp", "exps")), None)
    if copy is None:
        return here
    # `copy` is a copy of Git's root, and DVC's root may be a folder below it.
    root = next((folder for folder in above if (folder / ".dvc").is_dir() and folder.is_relative_to(copy)), copy)
    return copy.parents[3] / here.relative_to(root)


def sqlite_uri(path: Path) -> str:
    """Returns the address of an SQLite database; SQLAlchemy decodes the path."""
    return f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}"


def database_file(uri: str) -> Path | None:
    """Returns the file of an SQLite database, or None for another address."""
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    if name == uri or name.startswith((":memory:", "file:")):
        return None
    return Path(unquote(name)).absolute()


def _check_address(uri: str) -> None:
    """Refuses addresses that MLflow would reject or misinterpret."""
    shown, (scheme, mark, rest) = redacted(uri), uri.partition("://")
    if uri.startswith(("databricks", "uc:")):
        return
    if re.search(r"\s", uri):
        raise MaskcastError(f"{TRACKING_URI} {shown!r}: contains whitespace; set one address")
    if uri.startswith(("file:", "/", ".", "~")):
        raise MaskcastError(
            f"{TRACKING_URI} {shown}: MLflow 3 does not store runs in folders; use sqlite:////path/mlflow.db, or "
            "unset it"
        )
    if not mark:
        raise MaskcastError(
            f"{TRACKING_URI} {shown}: scheme is missing; set http://{shown} or sqlite:////path/mlflow.db"
        )
    if scheme not in ("http", "https"):
        return
    if has_user(uri) and re.search("[/@?#]", rest.rpartition("@")[0]):
        raise MaskcastError(
            f"{TRACKING_URI} {shown}: its user or password contains / @ ? or #; set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD instead"
        )
    try:
        parts = urlsplit(uri)
        is_valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise MaskcastError(f"{TRACKING_URI} {shown}: invalid host or port; set {scheme}://host:port")
    if not re.fullmatch("[!-~]*", os.environ.get(TRACKING_TOKEN, "")):  # e.g. a newline from `echo`
        raise MaskcastError(f"{TRACKING_TOKEN}: contains whitespace or non-ASCII characters; set only the token")
