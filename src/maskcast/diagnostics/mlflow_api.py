"""Calls MLflow's REST API with credentials from the environment; errors become one line."""

import os
from pathlib import Path
from typing import Any

import requests  # type: ignore[import-untyped]

from maskcast.errors import MaskcastError
from maskcast.redaction import redacted
from maskcast.runner.mlflow_errors import TLS, error_text

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
        """Returns the id of an experiment, or None if no experiment has this name.

        Raises:
            MaskcastError: see `request`.
        """
        path = "/api/2.0/mlflow/experiments/get-by-name"
        response = self.request("GET", path, allow_404=True, params={"experiment_name": name})
        return str(response.json()["experiment"]["experiment_id"]) if response.ok else None

    def post(self, path: str, **fields: Any) -> Any:
        """Returns the JSON response of an API call; see `request`."""
        return self.request("POST", f"/api/2.0/mlflow/{path}", json=fields).json()

    def request(self, method: str, path: str, *, allow_404: bool = False, **content: Any) -> Any:
        """Returns a response with status below 400, or 404 if ``allow_404``.

        Raises:
            MaskcastError: the server is unreachable, or returns another error.
        """
        try:
            response = self._session.request(
                method, f"{self._uri}{path}", timeout=TIMEOUT_S, verify=_ca_bundle(), **content
            )
        except requests.RequestException as error:
            is_tls_error = isinstance(error, requests.exceptions.SSLError)
            remedy = TLS if is_tls_error else "check that it is running"
            raise MaskcastError(f"{self.shown}: MLflow is unreachable ({error_text(error)}); {remedy}") from None
        if response.status_code in (401, 403):
            remedy = "check user, password and the server's --allowed-hosts"
            raise MaskcastError(
                f"{self.shown}: MLflow denied access ({response.status_code}: {response.text[:200]}); {remedy}"
            )
        if response.status_code >= 400 and not (allow_404 and response.status_code == 404):
            raise MaskcastError(
                f"{self.shown}: MLflow returned {response.status_code} ({response.text[:200]}); see its log"
            )
        return response


def _ca_bundle() -> str | bool:
    """Returns the CA file or switch that checks the server's certificate, as in MLflow's client."""
    authority = os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", "")
    if Path(authority).is_file():  # for pods, the path may exist only in their image
        return authority
    return os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("1", "true")
