"""The forecasters there are. A new one: a module with its config class, and a place here."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from maskcast.models.base import load_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.convrnn import ConvGRUConfig, ConvLSTMConfig
from maskcast.models.forecasting.objects import ObjectsConfig
from maskcast.models.forecasting.simvp import SimVPConfig

ForecasterConfig = Annotated[
    ConvLSTMConfig | ConvGRUConfig | SimVPConfig | ObjectsConfig, Field(discriminator="arch")
]


def load_forecaster(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Returns the forecaster that a training stage wrote, in eval mode, and its description.

    It has ``input`` ("masks" or "frames") and ``forecast(context, horizon)``.

    Raises:
        MaskcastError: if the folder holds no forecaster or a damaged one.
    """
    return load_model(folder, ForecasterConfig)


def adapt_forecaster(folder: Path, num_classes: int) -> tuple[Any, dict[str, Any], list[str]]:
    """Returns a forecaster for ``num_classes`` classes that starts from one that was trained for others.

    What it learned of single classes begins anew (drawn by torch's random state); all else is kept.

    Returns:
        The forecaster, its description, and the names of the weights that begin anew: none for as many classes.

    Raises:
        MaskcastError: if the folder holds no forecaster or a damaged one.
    """
    trained, description = load_forecaster(folder)
    if description["num_classes"] == num_classes:
        return trained, description, []
    config: ModelConfig = TypeAdapter(ForecasterConfig).validate_python(description["model"])
    model = config.build(num_classes)
    own, kept = model.state_dict(), trained.state_dict()
    anew = [name for name, weights in own.items() if weights.shape != kept[name].shape]
    model.load_state_dict({name: own[name] if name in anew else kept[name] for name in own})
    return model.eval(), description | {"num_classes": num_classes}, anew
