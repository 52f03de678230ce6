"""Progress of a run's stages, from the MLflow server in this machine's MLFLOW_TRACKING_URI."""

import os
import time
from contextlib import suppress
from typing import Any

from maskcast.diagnostics.mlflow_api import MlflowApi
from maskcast.errors import MaskcastError
from maskcast.reading import parsing
from maskcast.runner.mlflow_run import EXPERIMENT
from maskcast.runner.mlflow_uri import is_server

EVERY_S = 15.0


class Scores:
    """The last step and validation score of each stage; empty if no server is available.

    Args:
        run_id: id of the Kubeflow run, by which the runs of its stages are grouped.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._uri = os.environ.get("MLFLOW_TRACKING_URI", "").rstrip("/")
        self._queried_at = -EVERY_S
        self._texts: dict[str, str] = {}

    def by_stage(self) -> dict[str, str]:
        """Returns a short text per stage, e.g. ``step 80, val/jaccard 0.512``; queries at most every 15 s."""
        if is_server(self._uri) and time.monotonic() - self._queried_at >= EVERY_S:
            self._queried_at = time.monotonic()
            # On errors the last result is kept.
            with suppress(MaskcastError), parsing(self._uri, "an answer of MLflow", "fix MLFLOW_TRACKING_URI"):
                self._texts = {
                    _tag(each, "maskcast.name"): words for each in self._runs() if (words := _words(each))
                }
        return self._texts

    def _runs(self) -> list[dict[str, Any]]:
        """Returns the MLflow runs of the group, the oldest first."""
        server = MlflowApi(self._uri)
        experiment = server.experiment_id(os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT))
        if experiment is None:
            return []
        answer = server.post(
            "runs/search",
            experiment_ids=[experiment],
            filter=f"tags.`maskcast.group` = '{self._run_id}'",
            order_by=["attributes.start_time ASC"],
            max_results=100,
        )
        return list(answer.get("runs", []))


def _tag(run: dict[str, Any], key: str) -> str:
    return next((each["value"] for each in run["data"].get("tags", []) if each["key"] == key), "")


def _words(run: dict[str, Any]) -> str:
    metrics = run["data"].get("metrics", [])
    steps = [int(each.get("step", 0)) for each in metrics if each["key"] == "train/loss"]
    scores = [each for each in metrics if each["key"].startswith("val/")]
    words = [f"step {max(steps)}"] if steps else []
    if scores:
        best = next((each for each in scores if "jaccard" in each["key"]), scores[0])
        words.append(f"{best['key']} {float(best['value']):.3f}")
    return ", ".join(words)
