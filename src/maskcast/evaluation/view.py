"""The data of one forecast that `report` draws.

Legend: T context frames, h horizon, H height, W width, C = 3 channels (RGB); all arrays are uint8.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ForecastView:
    """The images and masks of one clip.

    Args:
        clip_id: heading.
        frames: (T + h, H, W, C), or None for masks alone.
        context: (T, H, W), the context masks.
        truth: (T + h, H, W), the true masks.
        forecasts: (h, H, W) by name of the forecaster; the first is the evaluated one.
        forecast_frames: (h, H, W, C) of a forecaster of frames, shown under its masks.
        classes: names by id, for a legend; empty if there are no names.
    """

    clip_id: str
    frames: np.ndarray | None
    context: np.ndarray
    truth: np.ndarray
    forecasts: dict[str, np.ndarray]
    forecast_frames: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    @property
    def evaluated(self) -> np.ndarray:
        """The forecast of the evaluated model."""
        return next(iter(self.forecasts.values()))
