"""A bundle as an MLflow model, for ``mlflow.pyfunc.load_model`` and ``mlflow models serve``.

It is written without MLflow, whose writer needs pandas, which images do not have. The tests read it with MLflow.

    MLmodel                     maskcast's loader and the signature; its only flavor is python_function
    requirements.txt            with python_env.yaml: what a server installs
    input_example.json          with serving_input_example.json: a small clip
    README.md                   the model card
    data/                       the bundle
"""

import json
import platform
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from maskcast import __version__
from maskcast.errors import MaskcastError
from maskcast.plugins import MODELS, plugin_packages
from maskcast.reading import parsing, read_yaml
from maskcast.registry.bundle import read_bundle, write_bundle
from maskcast.registry.card import model_card
from maskcast.registry.evaluations import EvaluationRecord
from maskcast.registry.kinds import Description, KindName
from maskcast.registry.runtime import Model, build_model, load_bundle

LOADER = "maskcast.registry.runtime"
REQUIREMENTS = ("mlflow-skinny", "numpy", "safetensors", "segmentation-models-pytorch", "torch", "torchvision")
EXAMPLE_PIXELS = 24  # longer side of the example: it is stored as text


@dataclass(frozen=True)
class ModelEntry:
    """A model to register.

    Attributes:
        name: of the registered model.
        about: its description.
        example: a small batch of inputs, uint8.
    """

    name: str
    about: Description
    example: np.ndarray


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: its folder, the digest of its bundle, and its model card."""

    name: str
    kind: KindName
    folder: Path
    digest: str
    card: str


def make_artifact(
    folder: Path, entry: ModelEntry, parts: Mapping[str, Path], record: EvaluationRecord, tags: Mapping[str, str]
) -> Artifact:
    """Writes an artifact, after loading its model from the bundle and running it on the example.

    Args:
        folder: is created.
        entry: the model.
        parts: folders that the training stages wrote.
        record: the evaluation, for the card.
        tags: provenance, for the card.

    Raises:
        MaskcastError: a file of a part is missing or damaged.
    """
    digest = write_bundle(folder / "data", entry.about, parts)
    model = load_bundle(folder / "data", digest)
    model.predict(entry.example)
    card = model_card(entry.about, parts, record, tags)
    write_artifact(folder, card, entry.example, (model.shape_in, model.shape_out), model.dtype_out)
    return Artifact(entry.name, entry.about.kind, folder, digest, card)


def write_artifact(
    folder: Path, card: str, example: np.ndarray, shapes: tuple[tuple[int, ...], ...], dtype_out: str = "uint8"
) -> None:
    """Writes the files beside ``folder/data``.

    Args:
        folder: has the bundle as ``data``.
        card: the model card.
        example: a small input on which the model has run.
        shapes: of input and output; -1 is any length.
        dtype_out: type of the output; the input is uint8.
    """
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join([*_pins(), ""]), encoding="utf-8")
    python = platform.python_version()
    environment = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment, sort_keys=False), encoding="utf-8")
    (folder / "input_example.json").write_text(json.dumps(example.tolist()), encoding="utf-8")
    (folder / "serving_input_example.json").write_text(json.dumps({"inputs": example.tolist()}), encoding="utf-8")
    inputs, outputs = (
        json.dumps([{"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": list(shape)}}])
        for dtype, shape in zip(("uint8", dtype_out), shapes, strict=True)
    )
    flavor = {"loader_module": LOADER, "data": "data", "python_version": python}
    model = {
        "flavors": {"python_function": flavor | {"env": {"virtualenv": "python_env.yaml"}}},
        "mlflow_version": version("mlflow-skinny"),
        "model_uuid": uuid.uuid4().hex,
        "saved_input_example_info": {
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "ndarray",
        },
        "signature": {"inputs": inputs, "outputs": outputs, "params": None},
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
    }
    (folder / "MLmodel").write_text(yaml.safe_dump(model), encoding="utf-8")


def _pins() -> list[str]:
    """Returns the versions of the packages that are installed; the model has just run without the others."""
    pins = [f"maskcast=={__version__}"]
    for name in REQUIREMENTS:
        with suppress(PackageNotFoundError):
            pins.append(f"{name}=={version(name).partition('+')[0]}")
    return pins + [f"{name}=={number}" for name, number in plugin_packages(MODELS).items()]


def load_artifact(folder: Path, digest: str) -> tuple[Model, Description]:
    """Checks a downloaded artifact, and returns its model and description.

    Args:
        folder: the artifact.
        digest: of its bundle, from the registry.

    Raises:
        MaskcastError: if the bundle has another digest, ``MLmodel`` names another loader, or the package of a
            plugin is not installed.
    """
    path = folder / "MLmodel"
    remedy = "register the model again"
    content = read_yaml(path, "description of a model", remedy)
    with parsing(path, "a description of a model", remedy):
        flavors: Any = content["flavors"]
        flavor = flavors["python_function"]
        is_valid = set(flavors) == {"python_function"} and (flavor["loader_module"], flavor["data"]) == (
            LOADER,
            "data",
        )
        is_valid &= flavor.keys() <= {"loader_module", "data", "python_version", "env"}  # `code` would be imported
    if not is_valid:
        raise MaskcastError(
            f"{path}: has another loader than {LOADER}, so it was modified; register the model again"
        )
    about = read_bundle(folder / "data", digest)
    try:
        return build_model(folder / "data", about), about
    except MaskcastError as error:
        path = folder / "requirements.txt"
        pins = pinned_packages(path) if path.is_file() else ()
        missing = ", ".join(
            f"{name}=={recorded}" for name, recorded, here in pins if not here and name not in REQUIREMENTS
        )
        if missing:
            raise MaskcastError(f"{error}; its requirements include {missing}, which is not installed") from error
        raise


def pinned_packages(requirements: Path) -> Iterator[tuple[str, str, str | None]]:
    """Yields for each pinned package its name, its version at registration, and the installed version or None."""
    for pin in requirements.read_text(encoding="utf-8").split():
        name, _, recorded = pin.partition("==")
        try:
            yield name, recorded, version(name).partition("+")[0]
        except PackageNotFoundError:
            yield name, recorded, None


def shrink_clip(clip_THWC: np.ndarray) -> np.ndarray:
    """Returns every n-th row and column of a clip, so that it is small enough for an example."""
    step = -(-max(clip_THWC.shape[1:3]) // EXAMPLE_PIXELS)
    return np.ascontiguousarray(clip_THWC[:, ::step, ::step])
