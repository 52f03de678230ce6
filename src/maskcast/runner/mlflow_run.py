"""The MLflow run of a stage: resumed, joined or created, with its tags, params and data sets.

A run is created with a key, which is first written to a file. When a killed stage is started again, it finds its
run by that key and resumes it. ``MLFLOW_RUN_ID`` names a run that was created elsewhere, e.g. for each pod by the
MLflow plugin of Kubeflow Pipelines. The first stage joins it, and further ones get child runs.
"""

import json
import re
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from maskcast.digest import DVC_HASH
from maskcast.errors import MaskcastError
from maskcast.params import flatten
from maskcast.progress import say
from maskcast.redaction import redacted
from maskcast.runner.mlflow_errors import is_not_found
from maskcast.runner.mlflow_moved import artifact_location, update_locations
from maskcast.runner.mlflow_uri import (
    TRACKING_URI,
    database_file,
    env_value,
    is_server,
    redacted_uri,
    tracking_uri,
)
from maskcast.runner.provenance import ERROR, Origin
from maskcast.writing import write_atomically

EXPERIMENT = "maskcast"
MAX_PARAMS = 100  # params per request, MLflow's limit
MAX_VALUE = 6000  # characters of a param, MLflow's limit
KEY = "maskcast.key"  # tag of a run: `Origin.digest` and a part that is unique to the run
DVC = "maskcast.dvc_hash"  # tag of a run's data set: its digest by DVC
PARENT, SOURCE = "mlflow.parentRunId", "mlflow.source.name"


def open_run(client: Any, origin: Origin, key_file: Path) -> str:
    """Returns the id of the run that a stage logs to, which is RUNNING and has the tags of its origin.

    Args:
        client: MLflow's client.
        origin: provenance of the run.
        key_file: has the key of the run of a killed process, if there was one.

    Raises:
        MaskcastError: an environment variable names an unusable run or experiment, or a server on another machine
            stores files in a folder of its own.
    """
    from mlflow.entities import RunTag

    with suppress(FileNotFoundError):
        _open_file(key_file).rename(key_file)
    if (database := database_file(tracking_uri())) is not None:
        update_locations(database)
    run_id, name = env_value("MLFLOW_RUN_ID"), env_value("MLFLOW_EXPERIMENT_NAME")
    external = None if run_id is None else _external_run(client, run_id)
    experiment = _experiment(client, name) if external is None else _experiment_of(client, external)
    _check_folder(client, experiment)
    resumed = _resumable_run(client, experiment.experiment_id, origin, key_file)
    if resumed is not None:
        client.update_run(resumed.info.run_id, status="RUNNING")
        if ERROR in resumed.data.tags:
            client.delete_tag(resumed.info.run_id, ERROR)
        _log_missing(client, resumed, origin)
        return str(resumed.info.run_id)
    parent = None
    if external is not None:
        taken = external.data.tags.get(KEY)
        if taken is None or taken.startswith(origin.digest):
            client.update_run(run_id, status="RUNNING")
            tags = {**origin.run_only_tags, KEY: origin.digest}
            client.log_batch(run_id, tags=[RunTag(*tag) for tag in tags.items() if tag[0] != SOURCE])
            _log_missing(client, external, origin)
            return str(run_id)
        parent = run_id
    key = f"{origin.digest}-{uuid.uuid4().hex}"
    key_file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(key_file, key)
    tags = {**origin.run_only_tags, KEY: key} | ({PARENT: parent} if parent else {})
    created = client.create_run(experiment.experiment_id, run_name=origin.title, tags=tags)
    _log_missing(client, created, origin)
    return str(created.info.run_id)


def end_run(client: Any, run_id: str, status: str, key_file: Path) -> None:
    """Ends a run. If that fails, its key is kept: the next ``open_run`` resumes it, and it does not stay RUNNING.

    Raises:
        Exception: what MLflow raises.
    """
    try:
        client.set_terminated(run_id, status)
    except Exception:
        with suppress(OSError):  # a rename needs no space on a full disk
            key_file.rename(_open_file(key_file))
        raise


def _open_file(key_file: Path) -> Path:
    """Returns the file of the key of a run that could not be ended, which is kept with nothing to resume from."""
    return key_file.with_name(f"{key_file.name}.open")


def _check_folder(client: Any, experiment: Any) -> None:
    """Checks that the folder where a server has an experiment's files is the same folder here, if it is one.

    Clients write to it directly. It is another one if the server has files of the last finished runs and none is
    here, or if not even the folder around it exists.

    Raises:
        MaskcastError: it is another folder.
    """
    if not is_server(tracking_uri()):
        return
    location = urlsplit(experiment.artifact_location)
    if location.scheme not in ("", "file"):
        return
    folder = Path(unquote(location.path))
    finished = client.search_runs([experiment.experiment_id], "attributes.status = 'FINISHED'", max_results=20)
    ids = [run.info.run_id for run in finished]
    is_here = any((folder / run_id).is_dir() for run_id in ids)
    if not is_here and (not folder.parent.is_dir() or any(map(_server_has_files, ids))):
        raise MaskcastError(
            f"{redacted_uri()}: this server has files of runs in its own folder {folder}, so they would be "
            "written to another disk here; start the server with --artifacts-destination on a new database, or "
            "set another MLFLOW_EXPERIMENT_NAME"
        )


def _server_has_files(run_id: str) -> bool:
    """Whether a server sees files of a run; the client's own `list_artifacts` looks at this machine's disk."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request_safe

    path, host = "/api/2.0/mlflow/artifacts/list", get_default_host_creds(tracking_uri())
    return bool(http_request_safe(host, path, "GET", params={"run_id": run_id}).json().get("files"))


def _resumable_run(client: Any, experiment: str, origin: Origin, key_file: Path) -> Any:
    """Returns the run that a killed process began for the same work; a run for other work is ended."""
    try:
        key = key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not re.fullmatch("[0-9a-f]{16}-[0-9a-f]{32}", key):
        return None  # incomplete, empty, or written by an older version
    run = next(iter(client.search_runs([experiment], f"tags.`{KEY}` = '{key}'", max_results=1)), None)
    if run is not None and not key.startswith(origin.digest):
        if run.info.status == "RUNNING":
            client.set_terminated(run.info.run_id, "KILLED")
        return None
    return run


def _log_missing(client: Any, run: Any, origin: Origin) -> None:
    """Logs those params and data sets that a run does not have yet."""
    from mlflow.entities import Param

    values = flatten(origin.params.model_dump(mode="json"))
    missing = [
        Param(name, redacted(str(value))[:MAX_VALUE])
        for name, value in values.items()
        if name not in run.data.params
    ]
    for start in range(0, len(missing), MAX_PARAMS):
        client.log_batch(run.info.run_id, params=missing[start : start + MAX_PARAMS])
    logged = {each.dataset.name for each in run.inputs.dataset_inputs} if run.inputs else set()
    datasets = [_dataset(name, path, origin) for name, path in origin.inputs.items() if name not in logged]
    if datasets:
        client.log_inputs(run.info.run_id, datasets)


def _dataset(name: str, path: Path, origin: Origin) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": path.absolute().as_uri()})
    tags = [InputTag("mlflow.data.context", name)]
    if dvc := origin.facts.get(f"{DVC_HASH}{name}"):
        tags.append(InputTag(DVC, dvc))
    return DatasetInput(Dataset(name, origin.data[name], "local", source), tags)


def _external_run(client: Any, run_id: str) -> Any:
    """Returns the run of ``MLFLOW_RUN_ID``."""
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if not is_not_found(error):
            raise
        run = None
    if run is None or run.info.lifecycle_stage == "deleted":
        raise MaskcastError(
            f"MLFLOW_RUN_ID {run_id}: run not found on {redacted_uri()}; unset it or fix {TRACKING_URI}"
        )
    return run


def _experiment_of(client: Any, run: Any) -> Any:
    """Returns the experiment of the run of ``MLFLOW_RUN_ID``; warns if other variables name another one."""
    experiment = client.get_experiment(run.info.experiment_id)
    for variable, actual in (
        ("MLFLOW_EXPERIMENT_ID", experiment.experiment_id),
        ("MLFLOW_EXPERIMENT_NAME", experiment.name),
    ):
        if env_value(variable) not in (None, str(actual)):
            say(
                f"tracking: {variable} {env_value(variable)} is ignored: MLFLOW_RUN_ID {run.info.run_id} "
                f"is a run of experiment {experiment.name!r} ({experiment.experiment_id})"
            )
    return experiment


def _experiment(client: Any, name: str | None) -> Any:
    """Returns the experiment for a new run, which is created if necessary."""
    experiment_id = env_value("MLFLOW_EXPERIMENT_ID")
    if experiment_id is not None:
        try:
            experiment = client.get_experiment(experiment_id)
        except Exception as error:
            if not is_not_found(error):
                raise
            raise MaskcastError(
                f"MLFLOW_EXPERIMENT_ID {experiment_id}: experiment not found on {redacted_uri()}; unset it or fix "
                f"{TRACKING_URI}"
            ) from None
        if name not in (None, experiment.name):
            raise MaskcastError(
                f"MLFLOW_EXPERIMENT_ID {experiment_id} ({experiment.name!r}) and MLFLOW_EXPERIMENT_NAME {name!r} "
                "are different experiments; unset one of them"
            )
    else:
        experiment = _experiment_by_name(client, name or EXPERIMENT)
    if experiment.lifecycle_stage == "deleted":
        raise MaskcastError(
            f"{redacted_uri()}: experiment {experiment.name!r} is deleted; restore it (`mlflow experiments "
            f"restore --experiment-id {experiment.experiment_id}`), or set MLFLOW_EXPERIMENT_NAME to another name"
        )
    return experiment


def _experiment_by_name(client: Any, name: str) -> Any:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # A database file has its artifacts in the folder beside it; a server has its own location.
        database = database_file(tracking_uri())
        location = None if database is None else artifact_location(database)
        try:
            client.create_experiment(name, artifact_location=location)
        except Exception:  # another process has created it in the meantime, or it cannot be created
            if client.get_experiment_by_name(name) is None:
                raise
        experiment = client.get_experiment_by_name(name)
    return experiment
