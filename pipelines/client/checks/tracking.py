"""Checks of the MLflow server by its REST API: it answers, accepts the credentials, and keeps runs and files."""

import os
from collections.abc import Iterator

from maskcast.diagnostics import tracking
from maskcast.diagnostics.checks import CheckResult, NotCheckedError
from maskcast.runner.mlflow_uri import TRACKING_TOKEN, TRACKING_URI, is_server
from pipelines.client.checks import Subject
from pipelines.client.checks.pod_environment import require_reachable, require_secrets

CREDENTIALS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", TRACKING_TOKEN)


def mlflow(subject: Subject) -> Iterator[CheckResult]:
    """Checks that a run with a file can be created, as stages do; it is deleted at once."""
    given = {*subject.cluster.env, *(key for keys in subject.cluster.secrets.values() for key in keys)}
    if TRACKING_URI not in given:
        remedy = f"add {TRACKING_URI} to `env` of the cluster file"
        yield CheckResult(
            "MLflow", "failed", "no MLflow server configured: runs would be lost with their pods", remedy
        )
        return
    require_reachable(subject, (TRACKING_URI,), "MLFLOW_TRACKING_SERVER_CERT_PATH")
    uri = os.environ.get(TRACKING_URI, "")
    if not is_server(uri):
        raise NotCheckedError(f"{uri or TRACKING_URI}: only http:// and https:// can be checked from here")
    require_secrets(subject, CREDENTIALS)
    yield from tracking.mlflow()
