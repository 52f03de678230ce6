"""The address of the MLflow server that keeps runs and models.

It comes from the environment (``MLFLOW_TRACKING_URI``). The embedded default is ``mlflow.db`` and ``mlartifacts/``
in the working directory; of a DVC experiment in a temporary folder (``dvc exp run --temp``, ``--queue``), in the
workspace that it was started from.
"""

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from maskcast.errors import MaskcastError
from maskcast.redaction import has_user, redacted

VARIABLE, TOKEN = "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN"
# MLflow asks a host of its makers what to report to them as soon as it is imported.
TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
os.environ.setdefault(TELEMETRY, "true")


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


def database_file(uri: str) -> Path | None:
    """Returns the file of a database in a file, or None of another."""
    name = uri.removeprefix("sqlite:///").partition("?")[0]
    if name == uri or name.startswith((":memory:", "file:")):
        return None
    return Path(name).absolute()


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
    if not re.fullmatch("[!-~]*", os.environ.get(TOKEN, "")):  # as `echo` leaves in a secret
        raise MaskcastError(f"{TOKEN}: has blanks, line breaks or letters beyond ASCII; set it anew")
