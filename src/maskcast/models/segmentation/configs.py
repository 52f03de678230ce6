"""Configs of the segmenters and of their loss; nothing here imports torch.

A new segmenter is a module with its network and its config, which is named in the union below; or a plugin.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from maskcast.errors import MaskcastError
from maskcast.labels import LabelMap
from maskcast.models.encoders.configs import EncoderModelConfig, SmpEncoderConfig, UNetEncoderConfig
from maskcast.models.encoders.weights import EncoderWeights, Sha256, check_digest
from maskcast.models.segmentation.config import LossConfig, MaskerModelConfig, SegmenterModelConfig
from maskcast.params import Params
from maskcast.plugins import with_plugins
from maskcast.reading import pluralize

if TYPE_CHECKING:
    from torch import nn

    from maskcast.models.encoders.pretrained import Pretrained
    from maskcast.models.segmentation.base import Segmenter


class UNetConfig(MaskerModelConfig):
    """The vanilla U-Net."""

    same_each_step: ClassVar[bool] = True
    encoder_name: ClassVar[str | None] = "network.down"
    head_name: ClassVar[str | None] = "network.head"
    arch: Literal["unet"] = "unet"
    width: int = Field(64, ge=1)
    """Channels of the first level; each level below has twice as many."""

    def network(self, channels: int) -> "tuple[nn.Module, int]":
        """Returns the U-Net, and the stride of its deepest level."""
        from maskcast.models.segmentation.unet import UNet

        network = UNet(self.width, channels)
        return network, network.down.output_stride

    @property
    def encoder_config(self) -> UNetEncoderConfig:
        """The config of the encoder."""
        return UNetEncoderConfig(width=self.width)


class SmpConfig(MaskerModelConfig):
    """A decoder and an encoder of segmentation-models-pytorch."""

    same_each_step: ClassVar[bool] = True
    encoder_name: ClassVar[str | None] = "network.encoder"
    head_name: ClassVar[str | None] = "network.segmentation_head.0"  # upsampling follows it
    arch: Literal[
        "smp_unet",
        "smp_unetplusplus",
        "smp_deeplabv3plus",
        "smp_deeplabv3",
        "smp_fpn",
        "smp_linknet",
        "smp_manet",
        "smp_pspnet",
        "smp_segformer",
        "smp_upernet",
        "smp_dpt",
    ]
    encoder: str = "resnet18"
    """Name of the encoder: one of segmentation-models-pytorch's, or ``tu-<name>`` for one of timm's."""
    encoder_weights: EncoderWeights | None = None
    """Initial weights: ``pretrained`` for the library's own from the Hugging Face hub;
    ``hf-hub:<owner>/<name>@<revision>``; or a local safetensors file or folder. null initialises randomly."""
    encoder_sha256: Sha256 | None = None
    """SHA-256 digest that the file of ``encoder_weights`` must have; null skips the check."""

    @model_validator(mode="after")
    def _digest_of_weights(self) -> Self:
        check_digest(self.encoder_weights, self.encoder_sha256)
        return self

    def network(self, channels: int) -> "tuple[nn.Module, int]":
        """Returns the network, and the deepest stride of its encoder.

        Raises:
            MaskcastError: if the library or the encoder is not there, or the architecture cannot use the encoder.
        """
        from maskcast.models.segmentation.smp import build_network

        return build_network(self.arch, self.encoder, channels)

    @property
    def encoder_config(self) -> SmpEncoderConfig:
        """The config of the encoder."""
        return SmpEncoderConfig(arch="smp", encoder=self.encoder)

    @property
    def unweighted(self) -> Self:
        """The config of the same network without ``encoder_weights``."""
        return self.model_copy(update={"encoder_weights": None, "encoder_sha256": None})

    def load_pretrained(self, segmenter: "Segmenter") -> "Pretrained | None":
        """Loads ``encoder_weights``, if it is set; all weights of the encoder must be in the file.

        Raises:
            MaskcastError: if the weights are not available, or belong to another encoder.
        """
        from maskcast.models.encoders.pretrained import start_from

        if self.encoder_weights is None:
            return None
        return start_from(self.encoder_of(segmenter), self.encoder, self.encoder_weights, self.encoder_sha256)


FrameConfig = Annotated[UNetConfig | SmpConfig, Field(discriminator="arch")]


class RecurrentConfig(SegmenterModelConfig):
    """A single-frame masker with a memory; docs/video.md says which values are the versions V1 to V6."""

    stateful: ClassVar[bool] = True
    same_each_step: ClassVar[bool] = True
    arch: Literal["recurrent"] = "recurrent"
    base: FrameConfig = UNetConfig()
    """The single-frame masker that the memory is added to."""
    place: Literal["logits", "decoder", "decoder_split", "scales"] = "scales"
    """Where the memory is inserted: at the logits; at the decoder's last features; at half of these after a 1x1
    convolution (``decoder_split``); or at half of the channels of each scale of a U-Net's decoder (``unet``,
    ``smp_unet``)."""
    cell: Literal["gru", "lstm"] = "gru"
    """Kind of recurrent cell."""
    sees: Literal["frame", "own_outputs"] = "frame"
    """``frame``: the state is carried from frame to frame. ``own_outputs``: at each frame the state starts at
    zero, reads the memory's own outputs for the two previous frames, then this frame."""
    hidden: int | None = Field(None, ge=1)
    """Channels of the cell's state; null uses as many as its input has."""
    frozen: Literal["nothing", "norms", "encoder", "base"] = "nothing"
    """What is frozen: its weights do not train and its batch-norm statistics stay fixed. ``norms`` fixes only the
    batch-norm statistics of the whole base: frames of a few clips are too much alike to estimate new ones."""

    def build(self, maps: Sequence[LabelMap]) -> "Segmenter":
        """Returns a freshly initialised segmenter, whose logits are those of its base before training.

        Raises:
            MaskcastError: if the base has no such place for the memory.
        """
        from maskcast.models.segmentation.base import logit_channels
        from maskcast.models.segmentation.recurrent import RecurrentSegmenter

        return RecurrentSegmenter(self, *self.base.network(sum(logit_channels(maps))), maps)

    @property
    def encoder_config(self) -> EncoderModelConfig | None:
        """The config of the encoder that it could start from."""
        return self.base.encoder_config

    def encoder_of(self, segmenter: "Segmenter") -> "nn.Module":
        """Returns the part of a segmenter that is its encoder."""
        return self.base.encoder_of(segmenter)

    def head_of(self, segmenter: "Segmenter") -> "nn.Module":
        """Returns the base's last convolution."""
        return self.base.head_of(segmenter)

    def load_pretrained(self, segmenter: "Segmenter") -> "Pretrained | None":
        """Loads the base's ``encoder_weights``, if it names any."""
        return self.base.load_pretrained(segmenter)


class MaskLossConfig(LossConfig):
    """Weights and reductions of ``losses.MaskLoss``; the defaults are system 0's (smp 0.3.2 semantics)."""

    name: Literal["standard"] = "standard"
    """The loss; a plugin may add others (docs/add-a-model.md)."""
    ce: float = Field(0.2, ge=0)
    """Weight of the cross entropy; 0 leaves the term out."""
    dice: float = Field(0.4, ge=0)
    """Weight of the Dice loss; 0 leaves the term out."""
    focal: float = Field(0.4, ge=0)
    """Weight of the focal loss; 0 leaves the term out."""
    background_weight: float = Field(0.3, ge=0)
    """Weight of class 0 in the cross entropy; the other classes have weight 1."""
    class_weights: list[Annotated[float, Field(ge=0)]] | None = None
    """Weight of each class in the cross entropy, background first; replaces ``background_weight``."""
    ce_reduction: Literal["weighted_mean", "mean"] = "weighted_mean"
    """Divide the summed cross entropy by the summed weights of the pixels (as PyTorch does) or by the number of
    pixels."""
    dice_classes: Literal["all", "present"] = "all"
    """Average over all classes, where a class absent from the batch adds 0, or only over the classes present."""
    dice_over: Literal["batch", "frame"] = "batch"
    """Sum counts over the batch and average over classes, or compute the score per frame and class and average
    those (SoftDice, with ``dice_smooth: 1.0e-4``; CrossDice also has ``ce: 0.5`` and ``dice: 0.5``)."""
    dice_smooth: float = Field(0.0, ge=0)
    """Added to numerator and denominator of each class's Dice score."""
    focal_form: Literal["sigmoid", "softmax"] = "sigmoid"
    """One-vs-rest sigmoid focal on every class, or ``(1 - p)^gamma * CE`` with the softmax of the true class."""
    focal_gamma: float = Field(2.0, ge=0)
    """Exponent of the focal factor; 0 gives plain cross entropy."""
    focal_classes: Literal["sum", "mean"] = "sum"
    """Sum the losses of the sigmoid form over the classes (smp 0.3.2) or average them (smp since 2026)."""

    def build(self, label_map: LabelMap) -> "nn.Module":
        """Returns the loss.

        Raises:
            MaskcastError: if the number of class weights is wrong.
        """
        from maskcast.models.segmentation.losses import MaskLoss

        given = self.class_weights
        if given is not None and len(given) != label_map.num_classes:
            raise MaskcastError(
                f"train_masker.loss.class_weights: has {pluralize(len(given), 'weight')}, map {label_map.name!r} "
                f"has {pluralize(label_map.num_classes, 'class')}; give one of each class, background first"
            )
        return MaskLoss(self)

    @model_validator(mode="after")
    def _has_a_term(self) -> Self:
        if not (self.ce or self.dice or self.focal):
            raise ValueError("ce, dice and focal are all 0, so nothing would be learnt; give one of them a weight")
        if not (self.dice or self.focal or self.class_weights is None or any(self.class_weights)):
            raise ValueError("class_weights are all 0, so nothing would be learnt; give a class a weight")
        return self

    @model_validator(mode="after")
    def _frames_may_lack_classes(self) -> Self:
        if self.dice_over == "frame" and (not self.dice_smooth or self.dice_classes != "all"):
            raise ValueError(
                "dice_over: frame needs dice_smooth above 0 and dice_classes all: a frame may lack a class"
            )
        return self


class MatteLossConfig(Params):
    """Weights of ``matte_losses.MatteLoss``; the defaults are those of Robust Video Matting."""

    l1: float = Field(1.0, ge=0)
    """Weight of the mean absolute difference; 0 leaves the term out."""
    laplacian: float = Field(1.0, ge=0)
    """Weight of the Laplacian pyramid loss; 0 leaves the term out."""
    coherence: float = Field(5.0, ge=0)
    """Weight of the temporal coherence loss: the mean squared difference of the changes from frame to frame,
    within a window; 0 leaves the term out."""

    @model_validator(mode="after")
    def _has_a_term(self) -> Self:
        if not (self.l1 or self.laplacian):
            raise ValueError("l1 and laplacian are 0, so no opacity would be learnt; give one of them a weight")
        return self


_Own = UNetConfig | SmpConfig | RecurrentConfig
if TYPE_CHECKING:
    SegmenterConfig = _Own
else:
    SegmenterConfig = with_plugins(_Own, "maskcast.segmenters", SegmenterModelConfig, "arch")
