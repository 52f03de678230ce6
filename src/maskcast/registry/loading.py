"""Loads registered models by address, and checks their digests."""

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.models.base import WEIGHTS
from maskcast.reading import parsing, read_json
from maskcast.registry.artifact import load_artifact
from maskcast.registry.bundle import bundle_digest
from maskcast.registry.forecast_models import MaskerModel, PipelineModel
from maskcast.registry.inputs import as_batch
from maskcast.registry.kinds import Description, ForecastDescription
from maskcast.registry.runtime import Model
from maskcast.registry.store import ADDRESS, ADDRESS_HELP, Registry, Version
from maskcast.runner.mlflow_client import download_files
from maskcast.runner.mlflow_errors import convert_mlflow_errors

SAMPLES = Path(__file__).parents[1] / "samples"  # samples shipped with maskcast; see README.md there
SAMPLE_PIPELINE = SAMPLES / "pipeline"
SAMPLE = "sample"  # address of the shipped samples

M = TypeVar("M", bound=Model)
D = TypeVar("D", bound=Description | None)


@dataclass(frozen=True)
class Loaded(Generic[M, D]):
    """A loaded model.

    Args:
        name: of the registered model that it is or belongs to, or else its folder.
        version: version number; empty if it was read from a folder.
        digest: of the registered bundle, or of the folder's weights.
        model: ready to predict.
        about: description; None of a folder that train_masker wrote.
        example: small input stored at registration, uint8 with a batch axis; without elements if there is none.
    """

    name: str
    version: str
    digest: str
    model: M
    about: D
    example: np.ndarray

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.name} version {self.version}" if self.version else self.name

    @property
    def identity(self) -> dict[str, str]:
        """Its identity for records of results."""
        return {"name": self.name, "version": self.version, "digest": self.digest}


LoadedPipeline = Loaded[PipelineModel, ForecastDescription]  # from frames to future masks
LoadedMasker = Loaded[MaskerModel, Description | None]  # from frames of a video to their masks


def is_sample(address: str | Path) -> bool:
    """Whether an address is the word `sample`, unless a file or folder has this name."""
    return str(address) == SAMPLE and not Path(SAMPLE).exists()


def load_address(address: str | None, *, trained: bool = False) -> Loaded[Any, Any]:
    """Returns the model at an address (see ``ADDRESS_HELP``).

    A model from the registry is checked against its registered digest. A folder is only checked against its own
    digests, so the user must trust it.

    Args:
        address: None or `sample` is the shipped pipeline, for simulated clips with CLEVRER's classes.
        trained: whether a folder that train_masker wrote is accepted, too.

    Raises:
        MaskcastError: the model does not exist, its digest differs, or the server is unreachable.
    """
    if address is None or is_sample(address):
        return _load(SAMPLE_PIPELINE, "the shipped pipeline", "", bundle_digest(SAMPLE_PIPELINE / "data"))
    if address.startswith("models:"):
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise MaskcastError(f"{address}: invalid model address; {_suggestion(address)}give {ADDRESS_HELP}")
        with convert_mlflow_errors():
            return load_version(Registry(match["name"]), match["number"] or match["alias"])
    folder = Path(address)
    weights = folder / WEIGHTS
    if trained and weights.is_file():
        return Loaded(address, "", sha256_of(weights), MaskerModel(folder, "fp32"), None, np.empty(0, np.uint8))
    if not (folder / "MLmodel").is_file():
        fault = "no registered model found"
        if weights.is_file():
            fault = "a model of a training stage, which is not registered"
        raise MaskcastError(f"{address}: {fault}; {_suggestion(address)}give {ADDRESS_HELP}")
    return _load(folder, str(folder), "", bundle_digest(folder / "data"))


def load_servable(address: str) -> Loaded[Any, Any]:
    """Returns the pipeline or the masker at an address (see ``load_address``; trained maskers are accepted).

    Raises:
        MaskcastError: as in ``load_address``, or the model is of another kind.
    """
    loaded = load_address(address, trained=True)
    if is_sample(address):
        loaded = replace(loaded, name=SAMPLE)  # its name in routes
    return loaded if isinstance(loaded.model, MaskerModel) else pipeline_of(loaded)


def _suggestion(address: str) -> str:
    """Returns a hint for addresses without their prefix or with another separator before the alias; else empty."""
    match = re.fullmatch(r"(models:/*)?([\w.-]+)([/@])([\w.-]+)", address)
    if match is None or not (match[1] or match[3] == "@"):
        return ""
    return f"did you mean models:/{match[2]}{'/' if match[4].isdecimal() else '@'}{match[4]}? "


def load_version(registry: Registry, which: str) -> Loaded[Any, Any]:
    """Returns the model of a version, by number or alias.

    Raises:
        MaskcastError: the version does not exist, or the digest of its artifact differs.
    """
    version = registry.find(which)
    with tempfile.TemporaryDirectory(prefix="maskcast-") as scratch:
        folder = download(registry, version, Path(scratch))
        return _load(folder, registry.name, str(version.number), version.digest)


def download(registry: Registry, version: Version, folder: Path) -> Path:
    """Downloads the artifact of a version into a folder; returns its path there.

    Raises:
        MaskcastError: it does not exist.
    """
    return download_files(registry.client, *registry.files(version), folder)


def with_identity(loaded: Loaded[Any, Any], what: str) -> Loaded[Any, Any]:
    """Returns a model that was read from a folder with its registered name and version.

    Raises:
        MaskcastError: ``what`` is not NAME/VERSION.
    """
    match = ADDRESS.fullmatch(f"models:/{what}")
    if match is None or match["number"] is None:
        raise MaskcastError(f"--as {what}: not a name and version number; give NAME/VERSION, e.g. maskcast/3")
    return replace(loaded, name=match["name"], version=match["number"])


def pipeline_of(loaded: Loaded[Any, Any]) -> LoadedPipeline:
    """Returns the model as a pipeline.

    Raises:
        MaskcastError: it is not a pipeline.
    """
    if not isinstance(loaded.model, PipelineModel):
        raise MaskcastError(
            f"{loaded.title}: is a {loaded.about.kind}, which does not forecast; give a pipeline, e.g. "
            "models:/maskcast@champion"
        )
    return loaded


def masker_of(loaded: Loaded[Any, Any]) -> LoadedMasker:
    """Returns the masker of a model.

    Raises:
        MaskcastError: it has none.
    """
    if isinstance(loaded.model, PipelineModel):
        return replace(loaded, model=loaded.model.masker)
    if not isinstance(loaded.model, MaskerModel):
        raise MaskcastError(f"{loaded.title}: is a {loaded.about.kind}, which does not mask frames; give a masker")
    return loaded


def _load(folder: Path, name: str, version: str, digest: str) -> Loaded[Any, Any]:
    model, about = load_artifact(folder, digest)
    path = folder / "input_example.json"
    values = read_json(path, "example of an input", "register the model again")
    with parsing(path, "an example of an input", "register the model again"):
        example, _ = as_batch(np.array(values, np.uint8), model.shape_in, str(path))
    return Loaded(name, version, digest, model, about, example)
