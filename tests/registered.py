"""A small registered pipeline as it lies in an artifact store, without a server."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.conftest import moving_squares
from tests.known import know_squares

from maskcast.labels import MASK, LabelMap
from maskcast.models.base import save_model
from maskcast.models.config import ModelConfig
from maskcast.models.forecasting.configs import ConvLSTMConfig
from maskcast.models.segmentation.configs import UNetConfig
from maskcast.models.segmentation.table import save_masker
from maskcast.registry.artifact import shrink_clip, write_artifact
from maskcast.registry.bundle import write_bundle
from maskcast.registry.kinds import ForecastDescription

CLASSES = ("background", "red", "blue")
HEIGHT, WIDTH, SEEN, HORIZON = 32, 48, 4, 2
CONVLSTM = ConvLSTMConfig(hidden=4, stride=4)
FACTS: dict[str, Any] = {
    "context_frames": SEEN,
    "horizon": HORIZON,
    "precision": "fp32",
    "height": HEIGHT,
    "width": WIDTH,
    "frame_stride": 2,
    "classes": CLASSES,
}


def write_parts(
    folder: Path, config: ModelConfig = CONVLSTM, noise: float = 0.2, label_map: str = MASK, **told: Any
) -> dict[str, Path]:
    """Writes a masker that tells the squares apart by their colours, and a forecaster that does something."""
    torch.manual_seed(0)
    masker = UNetConfig(width=4)
    network = know_squares(masker.build([LabelMap(label_map, CLASSES)]))
    forecaster = config.build(len(CLASSES))
    with torch.no_grad():
        for parameter in forecaster.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    meta = {"classes": list(CLASSES), "height": HEIGHT, "width": WIDTH, **told}
    save_masker(folder / "masker", network, masker, meta)
    save_model(folder / "forecaster", forecaster, config, num_classes=len(CLASSES), meta=meta)
    return {name: folder / name for name in ("masker", "forecaster")}


def write_registered(folder: Path, config: ModelConfig = CONVLSTM, reference: Any = None, **facts: Any) -> Path:
    """Writes the artifact of a pipeline and returns its folder; `reference` is what its masker knows of clips."""
    told = {} if reference is None else {"reference": reference}
    parts = write_parts(folder / "parts", config, label_map=facts.get("label_map", MASK), **told)
    about = ForecastDescription(kind="pipeline", **FACTS | facts)
    write_bundle(folder / "artifact" / "data", about, parts)
    example = shrink_clip(moving_squares(1, about.context_frames, HEIGHT, WIDTH)[0])[None]
    shapes = ((-1, -1, -1, -1, 3), (-1, about.horizon, -1, -1))
    write_artifact(folder / "artifact", "# a card", example, shapes)
    return folder / "artifact"


def clips_of_squares(count: int) -> np.ndarray:
    """Returns clips (B, T, H, W, 3) uint8 as long as the pipeline sees."""
    return np.stack([moving_squares(100 + k, SEEN, HEIGHT, WIDTH)[0] for k in range(count)])
