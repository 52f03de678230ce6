"""MLflow, and the only module that imports it: a client, and one run per learning or measuring stage.

The tracking URI and credentials come from the environment (``MLFLOW_TRACKING_URI`` and friends); the embedded
default is ``mlflow.db`` and ``mlartifacts/`` in the working directory. A thread of its own talks to the server:
training never waits for it. While the server is away everything queues up; what has not arrived two minutes
after the stage's end is counted and said.
"""

import logging
import os
import re
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from maskcast.digest import DATA_HASH
from maskcast.errors import MaskcastError
from maskcast.memory import collector_paused
from maskcast.params import flatten
from maskcast.progress import say
from maskcast.runner.provenance import output_tags, run_tags
from maskcast.runner.stage import running_name

EXPERIMENT = "maskcast"
FLUSH_S = 120.0  # how long the end of a stage waits for a server that is away
SEND_EVERY_S = 2.0
SAMPLE_EVERY_S = 10.0  # system metrics
MAX_BATCH = 1000  # metrics per request, MLflow's limit
MAX_PARAMS = 100  # params per request, MLflow's limit
REMEDIES = {
    "UNAUTHENTICATED": "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
    "PERMISSION_DENIED": "ask an administrator of the server for this right",
}


class TrackedRun:
    """One MLflow run, fed from a queue; a listener of ``progress``."""

    def __init__(self, stage: str, params: BaseModel, inputs: Mapping[str, Path], run_id_file: Path) -> None:
        self.stage, self.params, self.inputs, self.run_id_file = stage, params, inputs, run_id_file
        self._metrics: deque[tuple[str, float, int, int]] = deque()
        self._files: deque[tuple[Path, str]] = deque()
        self._output_tags: dict[str, str] = {}
        self._spool = tempfile.TemporaryDirectory(prefix="maskcast-")
        self._reported = 0
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._status = "FINISHED"
        # in the context of this thread, which knows what the stage goes by
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), name="mlflow", daemon=True)
        self._thread.start()

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Queues named numbers."""
        now = int(time.time() * 1000)
        self._metrics.extend((name, float(value), now, step or 0) for name, value in values.items())

    def file(self, path: Path, folder: str) -> None:
        """Queues a copy of a file: the stage may go on and remove its own."""
        place = Path(self._spool.name) / str(self._reported)
        place.mkdir()
        self._reported += 1
        self._files.append((Path(shutil.copy(path, place)), folder))

    def outputs(self, paths: Mapping[str, Path]) -> None:
        """Names what the stage made by its digests, so that what uses it leads back to this run."""
        self._output_tags = output_tags(paths)

    def section(self, title: str, content: object) -> None:
        """Keeps nothing: the page that it becomes part of is a file of the run."""

    def close(self, status: str) -> None:
        """Sends what is queued, waiting up to two minutes for a server that is away, and ends the run."""
        self._status, self._deadline = status, time.monotonic() + FLUSH_S
        self._stop.set()
        self._thread.join()
        self._spool.cleanup()

    def _work(self) -> None:
        client: _Client | None = None
        said = False
        while True:
            stopping = self._stop.wait(SEND_EVERY_S)
            try:
                client = client or _Client(self)
                client.send(self._metrics, self._files)
                if stopping:
                    client.end(self._status, self._output_tags)
                    return
                said = False
            # Whatever the server or the network does must not end a training run; it is said instead.
            except Exception as error:
                if time.monotonic() > self._deadline:
                    lost = f"{len(self._metrics)} metrics, {len(self._files)} files of {running_name(self.stage)}"
                    say(
                        f"tracking: lost {lost}: "
                        f"{_shown_uri()} did not answer ({_one_line(error)}); "
                        "the outputs of the stage are complete"
                    )
                    return
                if not said:
                    away = f"{_shown_uri()} does not answer ({_one_line(error)})"
                    say(f"tracking: {away}; going on, metrics are kept")
                    said = True
                if stopping:
                    time.sleep(SEND_EVERY_S)


class _Client:
    """The part that talks to MLflow; every method may raise when the server is away."""

    def __init__(self, run: TrackedRun) -> None:
        self._mlflow = new_client()
        self.run_id = self._open(run)
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(self.run_id, tracking_uri=tracking_uri())
        self._sampled = time.monotonic()
        self._samples = 0

    def send(self, metrics: deque[tuple[str, float, int, int]], files: deque[tuple[Path, str]]) -> None:
        """Sends the queues; an item leaves its queue only once the server has it."""
        from mlflow.entities import Metric

        self._sample(metrics)
        while metrics:
            batch = [metrics[i] for i in range(min(len(metrics), MAX_BATCH))]
            self._mlflow.log_batch(self.run_id, metrics=[Metric(*item) for item in batch])
            for _ in batch:
                metrics.popleft()
        while files:
            path, folder = files[0]
            self._mlflow.log_artifact(self.run_id, str(path), folder or None)
            files.popleft()

    def end(self, status: str, tags: Mapping[str, str]) -> None:
        for name, value in tags.items():
            self._mlflow.set_tag(self.run_id, name, value)
        self._mlflow.set_terminated(self.run_id, status)

    def _sample(self, metrics: deque[tuple[str, float, int, int]]) -> None:
        """Queues CPU, memory, disk, network and GPU use, averaged since the last time."""
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

    def _open(self, run: TrackedRun) -> str:
        """Goes on with the run that the environment or a killed process names, or creates one."""
        known = os.environ.get("MLFLOW_RUN_ID") or _read(run.run_id_file)
        if known is not None:
            self._mlflow.update_run(known, status="RUNNING")
            return known
        run_id = start_run(self._mlflow, run.stage, run.params, run.inputs)
        run.run_id_file.parent.mkdir(parents=True, exist_ok=True)
        run.run_id_file.write_text(run_id, encoding="utf-8")
        return run_id


@contextmanager
def tracked_run(
    stage: str, params: BaseModel, inputs: Mapping[str, Path], run_id_file: Path
) -> Iterator[TrackedRun]:
    """Opens a run for the block; it ends FINISHED, or FAILED when the block raises.

    Args:
        stage: the name that it goes by becomes the run's name.
        params: logged flattened, with dotted keys.
        inputs: the stage's inputs by port; each becomes a data set of the run, named by its digest.
        run_id_file: remembers the run's id, so that a killed stage that is started again goes on with its run.

    Raises:
        MaskcastError: the embedded default has no place to write to.
    """
    _check_embedded()
    run = TrackedRun(stage, params, inputs, run_id_file)
    try:
        yield run
    except BaseException:
        run.close("FAILED")
        raise
    run.close("FINISHED")


def tracking_uri() -> str:
    """Returns the server of the environment, or the embedded default in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path('mlflow.db').absolute()}"


def _check_embedded() -> None:
    """Fails at once where the embedded default cannot write: MLflow would try for minutes."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return
    folder = Path.cwd()
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        if (folder / "mlflow.db").exists():
            (folder / "mlflow.db").open("ab").close()
    except OSError as error:
        raise MaskcastError(
            f"{folder}/mlflow.db: cannot be written ({error.strerror}); set MLFLOW_TRACKING_URI or go elsewhere"
        ) from None


def new_client() -> Any:
    """Returns an ``MlflowClient`` of runs and the registry that soon says when its server is away.

    Raises:
        MaskcastError: the embedded default has no place to write to.
    """
    _check_embedded()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with collector_paused():
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # not one line per table of a new database
        return mlflow.MlflowClient(tracking_uri())


@contextmanager
def user_errors_of_server() -> Iterator[None]:
    """Turns what MLflow, its database or the network raise into one MaskcastError."""
    try:
        yield
    except MaskcastError:
        raise
    except Exception as error:
        if not isinstance(error, _server_errors()):
            raise
        code = getattr(error, "error_code", "")
        remedy = REMEDIES.get(code, "mend that or MLFLOW_TRACKING_URI and try again")
        raise MaskcastError(f"{_shown_uri()}: MLflow says: {_one_line(error)}; {remedy}") from error


def _server_errors() -> tuple[type[Exception], ...]:
    """Returns what MLflow, its database and the network raise."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException  # type: ignore[import-untyped]
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, RequestException, SQLAlchemyError


def bad_request(error: MaskcastError) -> Exception:
    """Returns an error as MLflow's model server tells it to a client, with status 400."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import BAD_REQUEST

    return MlflowException(str(error), error_code=BAD_REQUEST)


def start_run(client: Any, stage: str, params: BaseModel, inputs: Mapping[str, Path]) -> str:
    """Creates the run of a stage, with its tags, params and data sets, and returns its id."""
    from mlflow.entities import Param, RunTag

    tags = run_tags(stage, params, inputs)
    run_id: str = client.create_run(_experiment_id(client), run_name=tags["maskcast.name"]).info.run_id
    client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])
    logged = [Param(name, str(value)) for name, value in flatten(params.model_dump(mode="json")).items()]
    for start in range(0, len(logged), MAX_PARAMS):
        client.log_batch(run_id, params=logged[start : start + MAX_PARAMS])
    client.log_inputs(run_id, [_dataset(name, path, tags[f"{DATA_HASH}{name}"]) for name, path in inputs.items()])
    return run_id


def _experiment_id(client: Any) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
    found = client.get_experiment_by_name(name)
    if found is None:
        # The embedded default keeps its artifacts beside mlflow.db; a server decides for itself.
        embedded = None if "MLFLOW_TRACKING_URI" in os.environ else Path("mlartifacts").absolute().as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=embedded))
        except Exception:  # somebody else made it in between, or it cannot be made
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def _dataset(name: str, path: Path, digest: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(name, digest, "local", f'{{"uri": "{path.absolute().as_uri()}"}}')
    return DatasetInput(dataset, [InputTag("mlflow.data.context", name)])


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def _shown_uri() -> str:
    """Returns the tracking URI without a user and password that may stand in it."""
    return re.sub(r"(?<=//)[^/@]*@", "", tracking_uri())


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
