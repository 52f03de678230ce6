"""Maskers on disk."""

from pathlib import Path
from typing import Any

from maskcast.models.base import load_model
from maskcast.models.segmentation.base import Masker
from maskcast.models.segmentation.configs import SegmenterConfig


def load_masker(folder: Path) -> tuple[Masker, dict[str, Any]]:
    """Returns the masker that ``train_masker`` wrote, in eval mode, and its description.

    Raises:
        MaskcastError: if the folder holds no masker or a damaged one.
    """
    masker, description = load_model(folder, SegmenterConfig)
    assert isinstance(masker, Masker)
    return masker, description
