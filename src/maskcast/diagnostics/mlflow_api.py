"""Calls MLflow's REST API with credentials from the environment; errors become one line."""

import os
from pathlib import Path
from typing import Any

import requests  # type: ignore[import-untyped]

from maskcast.errors import MaskcastError
from maskcast.redaction import redacted
from maskcast.runner.mlflow_errors import error_text

TIMEOUT_S = (5, 10)  # seconds to connect, to read


class MlflowApi:
    """An MLflow server.

    Args:
        uri: address of the server, http:// or https://.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")
        self.shown = redacted(self._uri)  # a secret may contain an address with a password
        self._session = requests.Session()
        if user := os.environ.get("MLFLOW_TRACKING_USERNAME"):
            self._session.auth = (user, os.environ.get("MLFLOW_TRACKING_PASSWORD", ""))
        elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
            self._session.headers["Authorization"] = f"Bearer {token}"
        self._session.cert = os.environ.get("MLFLOW_TRACKING_CLIENT_CERT_PATH")

    def experiment_id(self, name: str) -> str | None:
        """Returns the id of an experiment, or None if there is none with this name.

        Raises:
            MaskcastError: see `ask`.
        """
        path = "/api/2.0/mlflow/experiments/get-by-name"
        answer = self.ask("GET", path, may_lack=True, params={"experiment_name": name})
        return str(answer.json()["experiment"]["experiment_id"]) if answer.ok else None

    def post(self, path: str, **fields: Any) -> Any:
        """Returns the JSON response of an API call; see `ask`."""
        return self.ask("POST", f"/api/2.0/mlflow/{path}", json=fields).json()

    def ask(self, method: str, path: str, *, may_lack: bool = False, **content: Any) -> Any:
        """Returns a response with status below 400, or 404 if ``may_lack``.

        Raises:
            MaskcastError: the server does not answer, or refuses the request.
        """
        try:
            answer = self._session.request(
                method, f"{self._uri}{path}", timeout=TIMEOUT_S, verify=_ca_bundle(), **content
            )
        except requests.RequestException as error:
            raise MaskcastError(
                f"{self.shown}: MLflow does not answer ({error_text(error)}); check that it is up"
            ) from None
        if answer.status_code in (401, 403):
            remedy = "check user, password and the server's --allowed-hosts"
            raise MaskcastError(
                f"{self.shown}: MLflow refuses ({answer.status_code}: {answer.text[:200]}); {remedy}"
            )
        if answer.status_code >= 400 and not (may_lack and answer.status_code == 404):
            raise MaskcastError(
                f"{self.shown}: MLflow answers {answer.status_code} ({answer.text[:200]}); see the server's log"
            )
        return answer


def _ca_bundle() -> str | bool:
    """Returns the CA file or switch that checks the server's certificate, as in MLflow's client."""
    authority = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
    if Path(authority).is_file():  # for pods, the path may exist only in their image
        return authority
    return os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("1", "true")
