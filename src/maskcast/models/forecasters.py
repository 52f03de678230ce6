"""The forecasters there are. A new one: a module with its config class, and a place here."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from maskcast.models.base import load_model
from maskcast.models.convrnn import ConvGRUConfig, ConvLSTMConfig
from maskcast.models.objects import ObjectsConfig
from maskcast.models.simvp import SimVPConfig

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
