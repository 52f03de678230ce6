"""A registered model in MLflow's registry: its versions, aliases and evaluations.

A version's tags: ``maskcast.digest`` (of its bundle), ``maskcast.evaluation_run`` (the run that holds
evaluation.json and the scores of each clip or image), ``maskcast.verdict`` (passed or failed), ``maskcast.gate``
(the verdict with its numbers, as JSON), ``maskcast.score.<name>``, and the provenance tags of runs.
"""

import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.progress import log_if_slow
from maskcast.reading import read_json
from maskcast.redaction import redacted
from maskcast.registry.evaluations import EvaluationRecord, read_evaluation
from maskcast.runner.dvc_lock import how_to_register
from maskcast.runner.mlflow_client import download_files, list_files, new_client
from maskcast.runner.mlflow_errors import is_conflict, is_not_found
from maskcast.runner.mlflow_uri import redacted_uri

NAME = r"^[\w.-]+$"  # of a registered model
PIPELINE = "maskcast"  # default name of the registered pipeline
ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<number>\d+)|@(?P<alias>[^/@]+))")
ADDRESS_HELP = "models:/NAME@ALIAS or models:/NAME/VERSION of the registry, or the folder of a downloaded artifact"
EVALUATION = "evaluation"  # folder of a run's artifacts
DIGESTS = "data/digests.json"  # of an artifact (see ``artifact``)
FILES = ("MLmodel", "input_example.json", DIGESTS)  # of an artifact, besides those that the digests name
CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"


@dataclass(frozen=True)
class Version:
    """A version of a registered model, at the time of reading."""

    name: str
    number: int
    run_id: str
    created_ms: int
    tags: Mapping[str, str]
    aliases: tuple[str, ...]

    @property
    def digest(self) -> str:
        """The digest of its bundle."""
        return self.tags.get("maskcast.digest", "")

    @property
    def gate(self) -> dict[str, Any]:
        """The verdict of the gate; empty if the version was never gated.

        Raises:
            MaskcastError: its tag was changed and is invalid.
        """
        try:
            return TypeAdapter(dict[str, Any]).validate_json(self.tags.get("maskcast.gate", "{}"))
        except ValidationError:
            raise MaskcastError(
                f"{self.name} version {self.number}: its tag maskcast.gate was changed and is invalid; "
                "register it again"
            ) from None


class Registry:
    """A registered model; methods raise MLflow's errors (see ``mlflow_errors.convert_mlflow_errors``).

    Args:
        name: of the registered model.
        creates: whether a missing database is created; queries do not.
    """

    def __init__(self, name: str, *, creates: bool = False) -> None:
        self.name = name
        self.client = new_client(read_only=not creates)

    def aliases(self) -> dict[str, int]:
        """Returns the version number of each alias; empty if the model is not registered."""
        model = self._model()
        return {alias: int(number) for alias, number in model.aliases.items()} if model else {}

    def model_tags(self) -> dict[str, str]:
        """Returns the tags of the registered model; empty if it is not registered."""
        model = self._model()
        return dict(model.tags) if model else {}

    def tag_model(self, name: str, value: str) -> None:
        """Sets a tag of the registered model."""
        _write(self.client.set_registered_model_tag, self.name, name, value)

    def versions(self) -> list[Version]:
        """Returns all versions, newest first."""
        aliases = self.aliases()
        entries = self.client.search_model_versions(f"name = '{self.name}'", max_results=10_000)
        versions = [
            Version(
                self.name,
                int(each.version),
                each.run_id or "",
                each.creation_timestamp,
                dict(each.tags),
                tuple(sorted(alias for alias, number in aliases.items() if number == int(each.version))),
            )
            for each in entries
        ]
        return sorted(versions, key=lambda each: -each.number)

    def find(self, which: str) -> Version:
        """Returns the version with a number or an alias.

        Raises:
            MaskcastError: it does not exist; the message lists all versions.
        """
        versions = self.versions()
        for version in versions:
            if which == str(version.number) or which in version.aliases:
                return version
        available = "; ".join(", ".join([str(each.number), *each.aliases]) for each in versions)
        if not versions:
            raise self.no_models_error()
        hint = "; a version gets it by passing the gate of a register stage" if which == CANDIDATE else ""
        raise MaskcastError(f"{self.name}: version or alias {which!r} not found; versions: {available}{hint}")

    def no_models_error(self) -> MaskcastError:
        """Returns the error for a model without versions."""
        return MaskcastError(
            f"{self.name}: no registered versions in {redacted_uri()}; fix --name or MLFLOW_TRACKING_URI, or "
            f"{how_to_register()}"
        )

    def create(
        self, source: str, run_id: str | None, tags: Mapping[str, str], description: str = "", purpose: str = ""
    ) -> int:
        """Creates a version together with its tags, and returns its number; creates the model if necessary.

        Args:
            source: location of the version's files.
            run_id: of the run that created it, if any.
            tags: of the version.
            description: of the version.
            purpose: description of the registered model, if it is created.
        """
        if self._model() is None:
            try:
                self.client.create_registered_model(self.name, description=purpose or None)
            except Exception:  # another process has created it in the meantime, or it cannot be created
                if self._model() is None:
                    raise
        created = self.client.create_model_version(
            self.name, source, run_id=run_id, tags=dict(tags), description=description or None
        )
        return int(created.version)

    def delete(self, number: int) -> None:
        """Deletes a version; its number is not reused."""
        self.client.delete_model_version(self.name, str(number))

    def tag(self, number: int, tags: Mapping[str, str]) -> None:
        """Sets those tags of a version that differ; MLflow's client sends two requests for each."""
        present = self.client.get_model_version(self.name, str(number)).tags
        for name, value in tags.items():
            if present.get(name) != value:
                _write(self.client.set_model_version_tag, self.name, str(number), name, value)

    def set_alias(self, alias: str, number: int) -> None:
        """Sets an alias to a version."""
        _write(self.client.set_registered_model_alias, self.name, alias, str(number))

    def drop_alias(self, alias: str) -> None:
        """Removes an alias."""
        self.client.delete_registered_model_alias(self.name, alias)

    def files(self, version: Version) -> tuple[str, str]:
        """Returns run id and artifact folder of a version's files.

        Raises:
            MaskcastError: a file is missing, or the version was not registered by maskcast.
        """
        title = f"{self.name} version {version.number}"
        if not version.run_id or not version.digest:
            raise MaskcastError(f"{title}: was not registered by a stage of maskcast; name another version")
        source = self.client.get_model_version_download_uri(self.name, str(version.number))
        folder = source.rpartition("/")[2]
        if (missing := self._missing_file(version, folder)) is not None:
            raise MaskcastError(
                f"{title}: its file {missing} is missing or changed in {redacted(source)}; restore it, register "
                "the same weights again (as a new version), or name another version"
            )
        return version.run_id, folder

    def evaluation_run(self, version: Version) -> str:
        """Returns the id of the run with a version's latest evaluation.

        Raises:
            MaskcastError: if it has none.
        """
        run_id = version.tags.get("maskcast.evaluation_run")
        if run_id is None:
            raise MaskcastError(f"{self.name} version {version.number}: has no evaluation; register it again")
        return run_id

    def evaluation(self, version: Version) -> EvaluationRecord:
        """Returns a version's latest evaluation.

        Raises:
            MaskcastError: it has none, or its files do not exist.
        """
        run_id = self.evaluation_run(version)
        if not self.has_evaluation(version):
            raise MaskcastError(
                f"{self.name} version {version.number}: its evaluation is missing in run {run_id}; restore it, "
                "or register the same weights with their evaluation again"
            )
        with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
            return read_evaluation(download_files(self.client, run_id, EVALUATION, Path(scratch)))

    def has_files(self, version: Version) -> bool:
        """Whether all files of a version exist."""
        try:
            self.files(version)
        except MaskcastError:
            return False
        return True

    def has_evaluation(self, version: Version) -> bool:
        """Whether the files of a version's latest evaluation exist."""
        return bool(self._listed(version.tags.get("maskcast.evaluation_run", ""), EVALUATION))

    def _missing_file(self, version: Version, folder: str) -> str | None:
        """Returns a file of a version that is missing in the artifacts of its run, or None.

        The bundle's list of digests names its files.
        """
        listed = self._listed(version.run_id, folder)
        missing = next((name for name in FILES if f"{folder}/{name}" not in listed), None)
        if missing is not None:
            return missing
        with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
            path = download_files(self.client, version.run_id, f"{folder}/{DIGESTS}", Path(scratch))
            if sha256_of(path) != version.digest:
                return DIGESTS
            names = [f"data/{name}" for name in read_json(path, "list of digests", "register the model again")]
        return next((name for name in names if f"{folder}/{name}" not in listed), None)

    def _listed(self, run_id: str, folder: str) -> set[str]:
        """Returns the files in a folder of a run's artifacts and below it; none if the run does not exist."""
        try:
            return list_files(self.client, run_id, folder)
        except Exception as error:
            if is_not_found(error):
                return set()
            raise

    def _model(self) -> Any:
        """Returns MLflow's registered model, or None if it is not registered."""
        with log_if_slow(f"a response of {redacted_uri()}"):  # the first request of most commands
            models = self.client.search_registered_models(f"name = '{self.name}'")
        return models[0] if models else None


def _write(call: Callable[..., None], *arguments: str) -> None:
    """Calls a method of MLflow that writes a tag or an alias, again if another process wrote the same one."""
    try:
        call(*arguments)
    except Exception as error:
        if not is_conflict(error):
            raise
        call(*arguments)
