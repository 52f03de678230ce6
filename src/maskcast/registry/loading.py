"""Loads registered models by address, and checks their digests."""

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

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


@dataclass(frozen=True)
class _Identity:
    """The identity of a loaded model.

    Args:
        name: of the registered model that it is or belongs to, or else its folder.
        version: version number; empty if it was read from a folder.
        digest: of the registered bundle, or of the folder's weights.
    """

    name: str
    version: str
    digest: str

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.name} version {self.version}" if self.version else self.name

    @property
    def identity(self) -> dict[str, str]:
        """Its identity for records of results."""
        return {"name": self.name, "version": self.version, "digest": self.digest}


@dataclass(frozen=True)
class Loaded(_Identity):
    """A model with its description.

    Args:
        model: ready to predict.
        about: description.
        example: small input stored at registration, uint8 with a batch axis.
    """

    model: Model
    about: Description
    example: np.ndarray


@dataclass(frozen=True)
class LoadedPipeline(Loaded):
    """A pipeline, from frames to future masks, with its description."""

    model: PipelineModel
    about: ForecastDescription


@dataclass(frozen=True)
class LoadedMasker(_Identity):
    """A masker, from frames of a video to their masks.

    Args:
        model: ready to predict.
        consistent_frames: window of consistent masks in the pipeline that it belongs to, if any.
    """

    model: MaskerModel
    consistent_frames: int | None = None


Servable = LoadedPipeline | LoadedMasker


def is_sample(address: str | Path) -> bool:
    """Whether an address is the word `sample`, unless a file or folder has this name."""
    return str(address) == SAMPLE and not Path(SAMPLE).exists()


def load_address(address: str) -> Loaded:
    """Returns the model at an address (see ``ADDRESS_HELP``), or the shipped pipeline for `sample`.

    A model from the registry is checked against its registered digest. A folder is only checked against its own
    digests, so the user must trust it.

    Raises:
        MaskcastError: the model does not exist, its digest differs, or the server is unreachable.
    """
    if address.startswith("models:"):
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise MaskcastError(f"{address}: invalid model address; {_suggestion(address)}give {ADDRESS_HELP}")
        with convert_mlflow_errors():
            return load_version(Registry(match["name"]), match["number"] or match["alias"])
    folder = Path(address)
    if is_sample(address):
        return load_sample_pipeline()
    if not (folder / "MLmodel").is_file():
        fault = "no registered model found"
        if (folder / WEIGHTS).is_file():
            fault = "a model of a training stage, which is not registered"
        raise MaskcastError(f"{address}: {fault}; {_suggestion(address)}give {ADDRESS_HELP}")
    return _load(folder, str(folder), "", bundle_digest(folder / "data"))


def _suggestion(address: str) -> str:
    """Returns a hint for addresses without their prefix or with another separator before the alias; else empty."""
    match = re.fullmatch(r"(models:/*)?([\w.-]+)([/@])([\w.-]+)", address)
    if match is None or not (match[1] or match[3] == "@"):
        return ""
    return f"did you mean models:/{match[2]}{'/' if match[4].isdecimal() else '@'}{match[4]}? "


def load_version(registry: Registry, which: str) -> Loaded:
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


def load_pipeline(address: str) -> LoadedPipeline:
    """Returns the pipeline at an address.

    Raises:
        MaskcastError: as in ``load_address``, or the model is not a pipeline.
    """
    return pipeline_of(load_address(address))


def with_identity(loaded: Servable, what: str) -> Servable:
    """Returns a model that was read from a folder with its registered name and version.

    Raises:
        MaskcastError: ``what`` is not NAME/VERSION.
    """
    match = ADDRESS.fullmatch(f"models:/{what}")
    if match is None or match["number"] is None:
        raise MaskcastError(f"--as {what}: not a name and version number; give NAME/VERSION, e.g. maskcast/3")
    return replace(loaded, name=match["name"], version=match["number"])


def load_sample_pipeline() -> LoadedPipeline:
    """Returns the small pipeline shipped with maskcast, for simulated clips with CLEVRER's classes."""
    return replace(load_pipeline(str(SAMPLE_PIPELINE)), name="the shipped pipeline")


def pipeline_of(loaded: Loaded) -> LoadedPipeline:
    """Returns the model as a pipeline.

    Raises:
        MaskcastError: it is not a pipeline.
    """
    if not isinstance(loaded, LoadedPipeline):
        raise MaskcastError(
            f"{loaded.title}: is a {loaded.about.kind}, which does not forecast; give a pipeline, e.g. "
            "models:/maskcast@champion"
        )
    return loaded


def load_masker_at(address: str) -> LoadedMasker:
    """Returns the masker at an address: a registered one, that of a pipeline, or a folder of train_masker.

    Raises:
        MaskcastError: the model does not exist, its digest differs, or it has no masker.
    """
    if (weights := Path(address) / WEIGHTS).is_file():
        return LoadedMasker(address, "", sha256_of(weights), MaskerModel(Path(address), "fp32"))
    return masker_of(load_address(address))


def load_servable(address: str) -> Servable:
    """Returns the pipeline at an address, or the masker (see ``load_masker_at``).

    Raises:
        MaskcastError: the model does not exist, its digest differs, or it is of another kind.
    """
    if (Path(address) / WEIGHTS).is_file():
        return load_masker_at(address)
    loaded = load_address(address)
    if is_sample(address):
        loaded = replace(loaded, name=SAMPLE)  # its name in routes
    return servable_of(loaded)


def servable_of(loaded: Loaded) -> Servable:
    """Returns the model as a pipeline or a masker.

    Raises:
        MaskcastError: it is of another kind.
    """
    return masker_of(loaded) if isinstance(loaded.model, MaskerModel) else pipeline_of(loaded)


def masker_of(loaded: Loaded) -> LoadedMasker:
    """Returns the masker of a model.

    Raises:
        MaskcastError: it has none.
    """
    model, consistent_frames = loaded.model, None
    if isinstance(model, PipelineModel):
        consistent_frames, model = model.consistent_frames, model.masker
    if not isinstance(model, MaskerModel):
        raise MaskcastError(f"{loaded.title}: is a {loaded.about.kind}, which does not mask frames; give a masker")
    return LoadedMasker(loaded.name, loaded.version, loaded.digest, model, consistent_frames)


def _load(folder: Path, name: str, version: str, digest: str) -> Loaded:
    model, about = load_artifact(folder, digest)
    path = folder / "input_example.json"
    values = read_json(path, "example of an input", "register the model again")
    with parsing(path, "an example of an input", "register the model again"):
        example, _ = as_batch(np.array(values, np.uint8), model.shape_in, str(path))
    if isinstance(model, PipelineModel) and isinstance(about, ForecastDescription):
        return LoadedPipeline(name, version, digest, model, about, example)
    return Loaded(name, version, digest, model, about, example)
