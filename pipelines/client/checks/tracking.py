"""Checks of the MLflow server by its REST API: it answers, accepts the credentials, and keeps runs and files."""

import os
from collections.abc import Iterator

from maskcast.diagnostics import tracking
from maskcast.diagnostics.rows import NotCheckedError, Row
from maskcast.runner.address import VARIABLE
from pipelines.client.checks import Subject
from pipelines.client.checks.outside import must_be_known


def mlflow(subject: Subject) -> Iterator[Row]:
    """Checks that a run with a file can be created, as stages do; it is deleted at once."""
    given = {*subject.cluster.env, *(key for keys in subject.cluster.secrets.values() for key in keys)}
    if VARIABLE not in given:
        remedy = f"add {VARIABLE} to `env` of the cluster file"
        yield Row("MLflow", "failed", "pods have no MLflow server: their runs would be lost with them", remedy)
        return
    must_be_known(VARIABLE)
    uri = os.environ.get(VARIABLE, "")
    if not uri.startswith(("http://", "https://")):
        raise NotCheckedError(f"{uri or VARIABLE}: only http:// and https:// can be checked from here")
    yield from tracking.mlflow()
