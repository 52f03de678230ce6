"""Params of the training of a segmenter; nothing here imports torch."""

from typing import Self

from pydantic import Field, model_validator

from maskcast.data.augment.frames import AugmentParams
from maskcast.models.segmentation.configs import MaskLossConfig, SegmenterConfig, UNetConfig
from maskcast.params import Params, is_null
from maskcast.training.schedule import TrainingParams


class WindowParams(Params):
    """Frames of a clip that a model with state learns from in one step."""

    frames: int = Field(default=8, ge=1)
    """Frames that are learnt from."""
    chunk: int = Field(default=4, ge=1)
    """Frames through which gradients flow back (truncated back-propagation through time)."""
    burn_in: int = Field(default=0, ge=0)
    """Frames before these that are only seen, without a gradient: the state is that of a clip under way."""

    alone: float = Field(default=0.0, ge=0)
    """Weight of the loss of each frame by itself, without the memory of a ``recurrent`` model."""

    @property
    def total(self) -> int:
        """Frames that are seen."""
        return self.burn_in + self.frames


class SegmentationTraining(Params):
    """How a segmenter is trained."""

    model: SegmenterConfig = UNetConfig()
    """Architecture and its sizes."""
    loss: MaskLossConfig = MaskLossConfig()
    """Terms of the loss of maps of classes, their weights and reductions."""
    augment: AugmentParams = AugmentParams()
    """How training frames are varied."""
    training: TrainingParams
    """Schedule; a sample of ``batch_size`` is one frame, or one window of a clip where the model has a state."""
    val_frame_step: int = Field(default=1, ge=1)
    """Validate on every n-th frame of the validation clips."""
    maps: list[str] | None = Field(default=None, min_length=1, exclude_if=is_null)
    """Label maps to learn; null learns all of kind classes or alpha."""
    window: WindowParams | None = Field(default=None, exclude_if=is_null)
    """What a model with state learns from; null for one without."""

    @model_validator(mode="after")
    def _window_is_for_models_with_state(self) -> Self:
        if self.model.stateful and self.window is None:
            raise ValueError(
                f"model {self.model.arch!r} remembers what it sees; give window, e.g. {{frames: 8, chunk: 4}}"
            )
        if not self.model.stateful and self.window is not None:
            raise ValueError(f"model {self.model.arch!r} sees each frame by itself; set window to null")
        if self.window is not None and self.window.alone and getattr(self.model, "frozen", "base") == "base":
            raise ValueError(
                f"model {self.model.arch!r} has no learning part that sees frames alone; set window.alone to 0, "
                "or model.frozen to nothing or encoder"
            )
        return self
