"""Params of the stages that train a forecaster; nothing here imports torch."""

from typing import Self

from pydantic import Field, model_validator

from maskcast.params import Batch, Params
from maskcast.training.schedule import TrainingParams


class ForecastTraining(Params):
    """What both stages that train a forecaster share."""

    training: TrainingParams
    """Schedule; a sample of ``batch_size`` is one window."""
    label_map: str | None = None
    """The label map to forecast, of kind classes or instances; null if there is only one."""
    context_frames: int = Field(default=11, ge=1)
    """Context frames in validation, and the most in training."""
    min_context_frames: int = Field(default=6, ge=1)
    """The fewest context frames in training."""
    horizon: int = Field(default=11, ge=1)
    """Number of frames to forecast."""
    flip: float = Field(default=0.5, ge=0, le=1)
    """Probability of flipping a window horizontally, which swaps the classes of `source.mirror_swaps`."""
    val_clips: int | None = Field(default=None, ge=1)
    """Number of clips to validate on, spread evenly over the split; null uses all."""
    val_batch_size: Batch = 8
    """Clips per batch in validation."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_context_frames > self.context_frames:
            raise ValueError(
                f"min_context_frames {self.min_context_frames} is above context_frames {self.context_frames}"
            )
        return self
