"""Configs of the encoders and of their self-supervised methods; nothing here imports torch.

A new encoder, or a new method, is a module with its network and a config class in the union below.
"""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.reading import pluralize

if TYPE_CHECKING:
    from torch import nn

    from maskcast.models.encoders.siamese import Normalised, Siamese


class EncoderModelConfig(Params):
    """Base of an encoder's config; a subclass adds ``arch: Literal[...]`` and its sizes."""

    def build(self) -> "nn.Module":
        """Returns a freshly initialised encoder."""
        raise TypeError(f"{type(self).__name__} must implement build")


class UNetEncoderConfig(EncoderModelConfig):
    """The down path of the vanilla U-Net."""

    arch: Literal["unet"] = "unet"
    width: int = Field(64, ge=1)
    """Channels of the first level; each level below has twice as many."""

    def build(self) -> "nn.Module":
        """Returns the encoder, freshly initialised."""
        from maskcast.models.encoders.unet import UNetEncoder

        return UNetEncoder(self.width)


class SmpEncoderConfig(EncoderModelConfig):
    """An encoder of segmentation-models-pytorch, to its deepest map."""

    arch: Literal["smp"]
    encoder: str = "resnet18"
    """Name of the encoder: one of segmentation-models-pytorch's, or ``tu-<name>`` for one of timm's."""

    def build(self) -> "nn.Module":
        """Returns the encoder, freshly initialised.

        Raises:
            MaskcastError: if the library or the encoder is not there.
        """
        from maskcast.models.encoders.smp import build_encoder

        return build_encoder(self.encoder, self.arch)


EncoderConfig = Annotated[UNetEncoderConfig | SmpEncoderConfig, Field(discriminator="arch")]


class MethodConfig(Params):
    """Base of the config of a method that trains; a subclass adds ``name: Literal[...]`` and its sizes."""

    def check(self, batch_size: int, frames: int) -> None:
        """Checks params against the schedule and the data.

        Raises:
            MaskcastError: if they do not fit; the message names the param and the numbers.
        """


class SiameseConfig(MethodConfig):
    """Base of the config of a method that compares two views, and trains an encoder alone."""

    momentum: float = Field(default=0.999, ge=0, lt=1)
    """Momentum of the slow encoder: the share of its weights that stays in each step."""
    sub_batches: int = Field(default=4, ge=1)
    """Number of shuffled parts of a batch within which the slow encoder's batch norms compute their statistics."""

    def build(self, encoder: "Normalised") -> "Siamese":
        """Returns the method for an encoder."""
        raise TypeError(f"{type(self).__name__} must implement build")


class MocoConfig(SiameseConfig):
    """Momentum contrast: which view is of the same frame, among a queue of others?"""

    name: Literal["moco"] = "moco"
    dim: int = Field(default=128, ge=2)
    """Length of an embedding."""
    hidden: int = Field(default=2048, ge=1)
    """Width of the projection head's hidden layer."""
    queue: int = Field(default=4096, ge=1)
    """Number of negatives, embeddings of earlier batches; a multiple of the batch, fewer than there are frames."""
    temperature: float = Field(default=0.2, gt=0)
    """Temperature of the softmax over similarities."""

    def build(self, encoder: "Normalised") -> "Siamese":
        """Returns MoCo for an encoder."""
        from maskcast.models.encoders.moco import Moco

        return Moco(self, encoder)

    def check(self, batch_size: int, frames: int) -> None:
        """Checks the length of the queue.

        Raises:
            MaskcastError: if it is no multiple of the batch, or holds every frame.
        """
        if self.queue % batch_size:
            raise MaskcastError(
                f"method.queue {self.queue} must be a multiple of training.batch_size {batch_size}; "
                f"choose e.g. {max(1, self.queue // batch_size) * batch_size}"
            )
        if self.queue >= frames:
            raise MaskcastError(
                f"method.queue {self.queue} must be below the {pluralize(frames, 'frame')} to learn from; "
                f"set it to {(frames - 1) // batch_size * batch_size} at most"
            )


class DenseCLConfig(MocoConfig):
    """MoCo, and the same for each cell of the last map with the cell most like it in the other view."""

    name: Literal["densecl"] = "densecl"  # type: ignore[assignment]
    dense_weight: float = Field(default=0.5, ge=0, le=1)
    """Weight of the dense (cell) loss; the global (frame) loss has the rest."""

    def build(self, encoder: "Normalised") -> "Siamese":
        """Returns DenseCL for an encoder."""
        from maskcast.models.encoders.moco import DenseCL

        return DenseCL(self, encoder)


class ByolConfig(SiameseConfig):
    """Bootstrap your own latent."""

    name: Literal["byol"] = "byol"
    dim: int = Field(default=256, ge=2)
    """Length of an embedding."""
    hidden: int = Field(default=4096, ge=1)
    """Width of the hidden layers of projector and predictor."""
    momentum: float = Field(default=0.996, ge=0, lt=1)
    """Momentum of the slow encoder: the share of its weights that stays in each step."""

    def build(self, encoder: "Normalised") -> "Siamese":
        """Returns BYOL for an encoder."""
        from maskcast.models.encoders.byol import Byol

        return Byol(self, encoder)


class DenseConfig(MethodConfig):
    """Base of the config of a method that predicts a picture, and trains encoder and decoder (``dense.py``)."""


class DenoiseConfig(DenseConfig):
    """Denoising: which noise was added?"""

    name: Literal["denoise"] = "denoise"
    sigma: float = Field(default=0.5, gt=0)
    """Standard deviation of the noise, in standard deviations of the frames' colours."""


class MaskedConfig(DenseConfig):
    """Masked reconstruction: what was in the patches that are hidden?"""

    name: Literal["masked"] = "masked"
    patch: int = Field(default=4, ge=1)
    """Height and width of a patch, in pixels of the view."""
    ratio: float = Field(default=0.5, gt=0, lt=1)
    """Share of the patches that is masked out."""


class NextFrameConfig(DenseConfig):
    """The next frame: what does a later frame of the clip have that this one has not?"""

    name: Literal["next_frame"] = "next_frame"
    distance: int = Field(default=1, ge=1)
    """How many frames ahead to predict."""


class NoMethod(Params):
    """Trains nothing: what starts from the encoder is randomly initialised."""

    name: Literal["none"]


Method = Annotated[
    MocoConfig | DenseCLConfig | ByolConfig | DenoiseConfig | MaskedConfig | NextFrameConfig | NoMethod,
    Field(discriminator="name"),
]
