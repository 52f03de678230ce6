"""Loads and runs registered models; MLflow's pyfunc uses it as ``loader_module``.

Nothing is unpickled: the bundle's digests are checked, configs are read as JSON and weights as safetensors.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.registry.bundle import read_bundle
from maskcast.registry.forecast_models import ForecasterModel, MaskerModel, PipelineModel
from maskcast.registry.frame_models import DetectorModel, EncoderModel
from maskcast.registry.inputs import Shape, check_request_size
from maskcast.registry.kinds import Description
from maskcast.runner.mlflow_errors import bad_request


class Model(Protocol):
    """A registered model of any kind."""

    shape_in: Shape
    shape_out: Shape
    dtype_out: str

    def predict(self, data: Any) -> np.ndarray:
        """Runs the model on a uint8 batch, or on one sample without the batch axis."""
        ...


def load_bundle(folder: Path, digest: str | None = None) -> Model:
    """Checks a bundle (see ``read_bundle``) and returns its model.

    Raises:
        MaskcastError: if a digest differs, or a config names an unknown architecture.
    """
    return build_model(folder, read_bundle(folder, digest))


def build_model(folder: Path, about: Description) -> Model:
    """Returns the model of a checked bundle.

    Raises:
        MaskcastError: if a config names an unknown architecture.
    """
    if about.kind == "detector":
        return DetectorModel(folder / "detector", about.precision)
    if about.kind == "masker":
        return MaskerModel(folder / "masker", about.precision, about.label_map)
    if about.kind == "segmenter":
        return MaskerModel(folder / "segmenter", about.precision, about.label_map)
    if about.kind == "encoder":
        return EncoderModel(folder / "encoder")
    forecaster = ForecasterModel(folder / "forecaster", about.horizon)
    if about.kind == "forecaster":
        return forecaster
    # Forecast frames are masked as in the evaluation.
    precision = "fp32" if forecaster.input.needs_masker else about.precision
    masker = MaskerModel(folder / "masker", precision, about.label_map)
    return PipelineModel(masker, forecaster, about.consistent_frames)


class PyfuncModel:
    """A model for MLflow: limits the size of calls; MLflow's server answers invalid ones with 400."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, data: Any) -> np.ndarray:
        """Runs the model on a batch."""
        try:
            check_request_size(np.shape(data), self.model.shape_in, self.model.shape_out)
            return self.model.predict(data)
        except MaskcastError as error:
            raise bad_request(error) from error

    def get_raw_model(self) -> Model:
        """Returns the model itself, for MLflow's ``get_raw_model()``, e.g. to use a masker's ``session()``."""
        return self.model


def _load_pyfunc(path: str) -> PyfuncModel:
    """Is called by ``mlflow.pyfunc.load_model`` with the path of the bundle."""
    return PyfuncModel(load_bundle(Path(path)))
