"""Params of the training of an encoder without labels; nothing here imports torch."""

from typing import Self

from pydantic import Field, model_validator

from maskcast.data.augment.views import ViewParams
from maskcast.models.encoders.configs import DenseCLConfig, EncoderConfig, Method, NoMethod, UNetEncoderConfig
from maskcast.params import Params
from maskcast.training.schedule import SgdCosine


class EncoderTraining(Params):
    """How an encoder is trained without labels."""

    model: EncoderConfig = UNetEncoderConfig()
    """Architecture and its sizes."""
    method: Method = DenseCLConfig()
    """What is learned without labels."""
    views: ViewParams = ViewParams()
    """How the two views of a sample are made."""
    max_frame_distance: int = Field(default=0, ge=0)
    """The second view is of a frame of the same clip at most so many frames away."""
    training: SgdCosine
    """Schedule; a sample of ``batch_size`` is two views of one frame, or of two frames of a clip."""

    @model_validator(mode="after")
    def _sub_batches_fit(self) -> Self:
        if not isinstance(self.method, NoMethod):
            batch, parts = self.training.batch_size, self.method.sub_batches
            if batch % parts:
                raise ValueError(f"training.batch_size {batch} is no multiple of method.sub_batches {parts}")
            processes = self.training.processes * self.training.nodes
            if parts % processes:
                raise ValueError(f"method.sub_batches {parts} is no multiple of the {processes} processes")
            if batch // parts < 2:
                raise ValueError(f"method.sub_batches {parts} leaves one sample of {batch} a part; lower it")
        return self
