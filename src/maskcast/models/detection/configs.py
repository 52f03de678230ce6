"""Configs of the detectors; nothing here imports torch.

A new detector is a module with its network and a config class in the union below.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from maskcast.errors import MaskcastError
from maskcast.models.config import ModelConfig
from maskcast.models.encoders.configs import SmpEncoderConfig
from maskcast.models.encoders.weights import EncoderWeights, Sha256, check_digest

if TYPE_CHECKING:
    from maskcast.models.detection.faster_rcnn import FasterRcnn
    from maskcast.models.encoders.pretrained import Pretrained


class FasterRcnnConfig(ModelConfig):
    """Faster R-CNN on a feature pyramid; the defaults of its sizes fit images of about 256 pixels."""

    arch: Literal["fasterrcnn"] = "fasterrcnn"
    version: int = Field(default=2, ge=1, le=2)
    """Heads: 1 as in the papers; 2 deeper, with batch norms (Li et al. 2021, arXiv 2111.11429)."""
    encoder: str = "resnet50"
    """Name of the encoder: one of segmentation-models-pytorch's, or ``tu-<name>`` for one of timm's."""
    encoder_weights: EncoderWeights | None = None
    """Initial weights: ``pretrained`` for the library's own from the Hugging Face hub;
    ``hf-hub:<owner>/<name>@<revision>``; or a local safetensors file or folder. null initialises randomly."""
    encoder_sha256: Sha256 | None = None
    """SHA-256 digest that the file of ``encoder_weights`` must have; null skips the check."""
    norm: Literal["frozen", "sync"] = "sync"
    """Batch norms of the encoder: frozen at their pretrained values, or trained and synchronised over all
    processes."""
    width: int = Field(default=256, ge=8)
    """Channels of each level of the pyramid."""
    anchor_sizes: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    """Sides of the anchors of each level, strides 4 to 64, in pixels of the resized image."""
    min_size: int = Field(default=224, ge=32)
    """Length in pixels that the shorter side of an image is resized to."""
    max_size: int = Field(default=448, ge=32)
    """Maximum length in pixels of the longer side; it takes precedence over `min_size`."""
    proposals: int = Field(default=1000, ge=1)
    """Maximum number of proposals per image."""
    rois: int = Field(default=512, ge=4)
    """Proposals per image that the box head trains on, a quarter of them objects."""

    @property
    def encoder_config(self) -> SmpEncoderConfig:
        """The encoder alone."""
        return SmpEncoderConfig(arch="smp", encoder=self.encoder)

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> "FasterRcnnConfig":
        check_digest(self.encoder_weights, self.encoder_sha256)
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        if min(self.anchor_sizes) < 1 or list(self.anchor_sizes) != sorted(self.anchor_sizes):
            raise ValueError(f"anchor_sizes {self.anchor_sizes} must be above 0 and ascend")
        return self

    def build(self, num_classes: int) -> "FasterRcnn":
        """Returns a freshly initialised detector of ``num_classes`` classes, the background not counted.

        Raises:
            MaskcastError: if a library or the encoder is not there, or the encoder has no maps of strides 4 to 32.
        """
        from maskcast.models.detection.faster_rcnn import build_faster_rcnn

        return build_faster_rcnn(self, num_classes)

    def start_from(self, detector: "FasterRcnn", encoder: Path | None) -> "Pretrained | None":
        """Loads pretrained weights into the encoder of a new detector, if there are any.

        Args:
            detector: returned by ``build``.
            encoder: folder that ``pretrain_encoder`` wrote; its colour statistics are used as well.

        Returns:
            The weights named by ``encoder_weights``, if it is set.

        Raises:
            MaskcastError: if the weights are unavailable or of another encoder, two sources are given, or batch
                norms are frozen without pretrained weights.
        """
        from maskcast.models.encoders.pretrained import start_from
        from maskcast.models.encoders.table import load_into

        pretrained = encoder and load_into(detector.encoder, encoder, self.encoder_config, "train_detector.model")
        colours = (pretrained["meta"]["mean"], pretrained["meta"]["std"]) if pretrained else None
        weights = None
        if self.encoder_weights is not None:
            if pretrained:
                raise MaskcastError(
                    f"model.encoder_weights {self.encoder_weights} and the encoder {encoder} both hold weights; "
                    "set model.encoder_weights to null, or pretrain_encoder.method.name to none"
                )
            weights = start_from(detector.encoder, self.encoder, self.encoder_weights, self.encoder_sha256)
            colours = weights.colours
        elif not pretrained and self.norm == "frozen":
            raise MaskcastError(
                "model.norm 'frozen' needs pretrained batch norms; use 'sync', or set an encoder or "
                "model.encoder_weights"
            )
        if colours is not None:
            detector.mean.copy_(detector.mean.new_tensor(colours[0]))
            detector.std.copy_(detector.std.new_tensor(colours[1]))
        return weights


DetectorConfig = FasterRcnnConfig  # the only one so far; a second makes it a union by `arch`
