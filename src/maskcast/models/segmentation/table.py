"""The maskers there are; a new one is a module with a subclass of MaskerModelConfig, named here in the union."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from maskcast.models.base import load_model
from maskcast.models.segmentation.base import Masker
from maskcast.models.segmentation.smp import SmpConfig
from maskcast.models.segmentation.unet import UNetConfig

MaskerConfig = Annotated[UNetConfig | SmpConfig, Field(discriminator="arch")]


def load_masker(folder: Path) -> tuple[Masker, dict[str, Any]]:
    """Returns the masker that ``train_masker`` wrote, in eval mode, and its description.

    Raises:
        MaskcastError: if the folder holds no masker or a damaged one.
    """
    masker, description = load_model(folder, MaskerConfig)
    assert isinstance(masker, Masker)
    return masker, description
