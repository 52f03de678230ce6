"""Loads detectors from disk."""

from pathlib import Path
from typing import Any

from maskcast.models.base import load_model
from maskcast.models.detection.base import Detector
from maskcast.models.detection.configs import DetectorConfig


def load_detector(folder: Path) -> tuple[Detector, dict[str, Any]]:
    """Returns the detector that ``train_detector`` wrote, in eval mode, and its description.

    Raises:
        MaskcastError: if the folder holds no detector or a damaged one.
    """
    detector, description = load_model(folder, DetectorConfig, "detector")
    assert isinstance(detector, Detector)
    return detector, description
