"""Loads forecasters from disk, and adapts them to other classes."""

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from maskcast.models.base import load_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.base import Forecaster
from maskcast.models.forecasting.configs import ForecasterConfig
from maskcast.plugins import checked_return


def load_forecaster(folder: Path) -> tuple[Forecaster, dict[str, Any]]:
    """Returns the forecaster that a training stage wrote, in eval mode, and its description.

    Raises:
        MaskcastError: if the folder holds no forecaster or a damaged one.
    """
    model, description = load_model(folder, ForecasterConfig, "forecaster")
    assert isinstance(model, Forecaster)  # these configs build nothing else
    return model, description


def config_of(description: dict[str, Any]) -> ForecasterConfig:
    """Returns the config in a forecaster's description."""
    return TypeAdapter(ForecasterConfig).validate_python(description["model"])


def build_forecaster(config: ModelConfig, num_classes: int) -> Forecaster:
    """Returns a freshly initialised forecaster.

    Raises:
        MaskcastError: if the config, which may be of another package, builds something else.
    """
    forecaster: Forecaster = checked_return(config, "build", Forecaster, config.build(num_classes))
    return forecaster


def adapt_forecaster(folder: Path, num_classes: int) -> tuple[Forecaster, dict[str, Any], list[str]]:
    """Returns a forecaster for ``num_classes`` classes with the weights of one trained for other classes.

    Weights that belong to single classes are initialised anew (from torch's random state); all others are kept.

    Returns:
        The forecaster, its description, and the names of the new weights: none if the number of classes is the
        same.

    Raises:
        MaskcastError: if the folder holds no forecaster or a damaged one.
    """
    trained, description = load_forecaster(folder)
    if description["num_classes"] == num_classes:
        return trained, description, []
    model = build_forecaster(config_of(description), num_classes)
    new_state, kept = model.state_dict(), trained.state_dict()
    reinitialized = [name for name, weights in new_state.items() if weights.shape != kept[name].shape]
    model.load_state_dict({name: new_state[name] if name in reinitialized else kept[name] for name in new_state})
    return model.eval(), description | {"num_classes": num_classes}, reinitialized
