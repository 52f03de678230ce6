"""Sends metrics, system metrics and files to the MLflow run of a stage."""

import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from maskcast.redaction import redacted
from maskcast.runner.mlflow_client import new_client
from maskcast.runner.mlflow_run import open_run
from maskcast.runner.mlflow_uri import redacted_uri, tracking_uri
from maskcast.runner.provenance import Origin

SAMPLE_EVERY_S = 10.0  # interval of system metrics
MAX_BATCH = 1000  # metrics per request, MLflow's limit

Metrics = deque[tuple[str, float, int, int]]  # name, value, milliseconds since 1970, step
Files = deque[tuple[Path, str]]  # with the folder in the run


class StoreError(Exception):
    """MLflow's artifact store did not take a file; the cause says why."""


class Sender:
    """Opens a stage's run and sends to it; every method may raise if the server is unavailable.

    Args:
        origin: provenance of the run.
        key_file: see ``open_run``.

    Attributes:
        run_id: id of the run.
        store: name of its artifact store, for messages.
    """

    def __init__(self, origin: Origin, key_file: Path) -> None:
        self._mlflow = new_client()
        self.run_id = open_run(self._mlflow, origin, key_file)
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        artifacts = urlsplit(self._mlflow.get_run(self.run_id).info.artifact_uri)
        at = redacted_uri() if artifacts.scheme == "mlflow-artifacts" else redacted(artifacts.geturl())
        self.store = f"the artifact store of MLflow ({at})"
        self._monitor = SystemMetricsMonitor(self.run_id, tracking_uri=tracking_uri())
        self._sampled = time.monotonic()
        self._samples = 0

    def send_metrics(self, metrics: Metrics) -> None:
        """Sends a queue; an item is removed once the server has it."""
        from mlflow.entities import Metric

        self._sample(metrics)
        while metrics:
            batch = [metrics[i] for i in range(min(len(metrics), MAX_BATCH))]
            self._mlflow.log_batch(self.run_id, metrics=[Metric(*item) for item in batch])
            for _ in batch:
                metrics.popleft()

    def send_files(self, files: Files) -> None:
        """Sends a queue as ``send_metrics`` does.

        Raises:
            StoreError: the artifact store fails.
        """
        while files:
            path, folder = files[0]
            try:
                self._mlflow.log_artifact(self.run_id, str(path), folder or None)
            except Exception as error:
                raise StoreError from error
            files.popleft()

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        """Sets the last tags of the run, and ends it."""
        for name, value in tags.items():
            self._mlflow.set_tag(self.run_id, name, value)
        self._mlflow.set_terminated(self.run_id, status)

    def _sample(self, metrics: Metrics) -> None:
        """Queues CPU, memory, disk, network and GPU use, averaged since the last call."""
        self._monitor.collect_metrics()
        if time.monotonic() - self._sampled < SAMPLE_EVERY_S and self._samples:
            return
        now = int(time.time() * 1000)
        used = self._monitor.aggregate_metrics()
        metrics.extend((f"system/{name}", float(value), now, self._samples) for name, value in used.items())
        for monitor in self._monitor.monitors:
            monitor.clear_metrics()
        self._sampled = time.monotonic()
        self._samples += 1
