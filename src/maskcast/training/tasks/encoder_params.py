"""Params of the training of an encoder without labels; nothing here imports torch."""

from typing import Self

from pydantic import Field, model_validator

from maskcast.data.augment.views import ViewParams
from maskcast.models.encoders.configs import (
    DenseCLConfig,
    DenseConfig,
    EncoderConfig,
    Method,
    NoMethod,
    SiameseConfig,
    UNetEncoderConfig,
)
from maskcast.models.segmentation.configs import SegmenterConfig
from maskcast.params import Params
from maskcast.training.schedule import SgdCosine


class EncoderTraining(Params):
    """How an encoder is trained without labels."""

    model: EncoderConfig = UNetEncoderConfig()
    """Architecture and its sizes."""
    network: SegmenterConfig | None = None
    """The whole masker that dense methods (denoise, masked, next_frame) pretrain, written as
    ``train_masker.model``. Its encoder must be ``model``. null for methods that train only an encoder."""
    method: Method = DenseCLConfig()
    """The self-supervised method."""
    views: ViewParams = ViewParams()
    """Augmentation of the two views of a sample; dense methods use one view, made like the first."""
    max_frame_distance: int = Field(default=0, ge=0)
    """The second view is of a frame of the same clip that is at most this many frames away."""
    training: SgdCosine
    """Schedule; a sample of ``batch_size`` is two views, of one frame or of two frames of a clip."""

    @model_validator(mode="after")
    def _sub_batches_fit(self) -> Self:
        if isinstance(self.method, SiameseConfig):
            batch, parts = self.training.batch_size, self.method.sub_batches
            if batch % parts:
                raise ValueError(f"training.batch_size {batch} must be a multiple of method.sub_batches {parts}")
            processes = self.training.world_size
            if parts % processes:
                raise ValueError(f"method.sub_batches {parts} must be a multiple of the {processes} processes")
            if batch // parts < 2:
                raise ValueError(f"method.sub_batches {parts} leaves one sample of {batch} per part; lower it")
        return self

    @model_validator(mode="after")
    def _dense_methods_train_a_network(self) -> Self:
        if not isinstance(self.method, DenseConfig):
            if self.network is not None and not isinstance(self.method, NoMethod):
                raise ValueError(f"method {self.method.name!r} trains only an encoder; set network to null")
            return self
        if self.network is None:
            raise ValueError(
                f"method {self.method.name!r} trains encoder and decoder; set network to train_masker.model"
            )
        own = self.network.encoder_config
        if own != self.model:
            shown = "none" if own is None else own.model_dump(mode="json")
            raise ValueError(f"the encoder of network is {shown}; set model to it")
        if self.network.stateful:
            raise ValueError(f"network {self.network.arch!r} has state; use a single-frame network")
        return self
