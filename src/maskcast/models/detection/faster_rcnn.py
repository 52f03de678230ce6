"""Detectors: Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) on a feature pyramid (Lin et al. 2017, 1612.03144).

Torchvision's network with its normalisation inside and the data's own class ids outside: bytes go in, boxes come
out. Torchvision is imported when a network is built, because that takes seconds.

Legend: N boxes of an image, H height, W width, C = 3 colour channels. Boxes are (x1, y1, x2, y2) in pixels, labels
0..K-1: torchvision keeps class 0 for the background, so that ids are shifted by one on the way in and back out.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.models.base import load_model, load_weights
from maskcast.models.config import ModelConfig
from maskcast.models.encoders.configs import SmpEncoderConfig
from maskcast.models.encoders.smp import bare
from maskcast.models.encoders.table import load_into

LEVELS = ("0", "1", "2", "3")  # of the pyramid, strides 4 to 32; all of them feed the box head
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Detector(nn.Module):
    """Faster R-CNN for uint8 RGB images of any sizes.

    Args:
        network: torchvision's, for K + 1 classes, that neither normalises nor resizes images for training.
        frozen: whether the encoder's batch norms keep their statistics and weights, in training mode, too.

    ``mean`` and ``std``, per channel of images scaled to [0, 1], are buffers saved with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.network, self.frozen = network, frozen
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))
        if frozen:
            for norm in self._frozen_norms():
                norm.requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        """The backbone below the pyramid."""
        return self.network.backbone.encoder  # type: ignore[union-attr, return-value]

    @property
    def most_boxes(self) -> int:
        """Boxes that are found in an image at most."""
        return int(self.network.roi_heads.detections_per_img)  # type: ignore[union-attr, arg-type]

    def train(self, mode: bool = True) -> "Detector":
        """Sets the mode of all but frozen batch norms, which stay in eval mode."""
        super().train(mode)
        if self.frozen:
            for norm in self._frozen_norms():
                norm.eval()
        return self

    def losses(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Returns the four losses of a batch, in training mode.

        Args:
            images: uint8 (H, W, C) each, at the size the network is to see.
            boxes: float32 (N, 4) each; an image may have none.
            labels: int64 (N,) each.

        Returns:
            ``loss_objectness`` and ``loss_rpn_box_reg`` of the proposals, ``loss_classifier`` and
            ``loss_box_reg`` of the boxes.
        """
        targets = [{"boxes": box, "labels": label + 1} for box, label in zip(boxes, labels, strict=True)]
        losses: dict[str, Tensor] = self.network(self._normalised(images), targets)
        return losses

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Returns ``boxes`` (N, 4), ``labels`` (N,) and ``scores`` (N,) of each image, in eval mode, best first.

        Args:
            images: uint8 (H, W, C) each; they are resized for the network, and boxes are those of the image given.
        """
        found: list[dict[str, Tensor]] = self.network(self._normalised(images))
        return [image | {"labels": image["labels"] - 1} for image in found]

    def _normalised(self, images: Sequence[Tensor]) -> list[Tensor]:
        return [((image.float() / 255 - self.mean) / self.std).permute(2, 0, 1).contiguous() for image in images]

    def _frozen_norms(self) -> list[nn.Module]:
        return [module for module in self.encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


class PyramidBackbone(nn.Module):
    """An encoder's maps of strides 4 to 32 as a pyramid of ``width`` channels each, and one level more on top."""

    def __init__(self, encoder: nn.Module, channels: Sequence[int], width: int, norm: Any) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.encoder, self.out_channels = encoder, width
        self.fpn = FeaturePyramidNetwork(list(channels), width, extra_blocks=LastLevelMaxPool(), norm_layer=norm)

    def forward(self, x_BCHW: Tensor) -> dict[str, Tensor]:
        """Returns the maps by level."""
        maps = self.encoder(x_BCHW)[-len(LEVELS) :]
        pyramid: dict[str, Tensor] = self.fpn(OrderedDict(zip(LEVELS, maps, strict=True)))
        return pyramid


class FasterRcnnConfig(ModelConfig):
    """Faster R-CNN on a feature pyramid; the defaults of its sizes fit images of about 256 pixels."""

    arch: Literal["fasterrcnn"] = "fasterrcnn"
    version: int = Field(default=2, ge=1, le=2)
    """Heads: 1 as in the papers; 2 deeper and with batch norms (Li et al. 2021, arXiv 2111.11429)."""
    encoder: str = "resnet50"
    """Name of the encoder: one of segmentation-models-pytorch's, or ``tu-<name>`` for one of timm's."""
    encoder_weights: Path | None = None
    """Safetensors file with the state of the bare encoder to start training from; null starts at random."""
    norm: Literal["frozen", "sync"] = "sync"
    """Batch norms of the encoder: frozen as they were pretrained, or trained, over all processes together."""
    width: int = Field(default=256, ge=8)
    """Channels of each level of the pyramid."""
    anchor_sizes: tuple[int, int, int, int, int] = (16, 32, 64, 128, 256)
    """Sides of the anchors of each level, strides 4 to 64, in pixels of the resized image."""
    min_size: int = Field(default=224, ge=32)
    """Pixels that the shorter side of an image is resized to."""
    max_size: int = Field(default=448, ge=32)
    """Pixels that the longer side may have at most; the shorter one gives way."""
    proposals: int = Field(default=1000, ge=1)
    """Proposals of an image at most."""
    rois: int = Field(default=512, ge=4)
    """Proposals of an image that the box head learns from, a quarter of them objects."""

    @property
    def encoder_config(self) -> SmpEncoderConfig:
        """The encoder alone."""
        return SmpEncoderConfig(arch="smp", encoder=self.encoder)

    @model_validator(mode="after")
    def _sizes_make_sense(self) -> "FasterRcnnConfig":
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} is below min_size {self.min_size}")
        if min(self.anchor_sizes) < 1 or list(self.anchor_sizes) != sorted(self.anchor_sizes):
            raise ValueError(f"anchor_sizes {self.anchor_sizes} must be above 0 and ascend")
        return self

    def build(self, num_classes: int) -> Detector:
        """Returns a freshly initialised detector of ``num_classes`` classes, the background not counted.

        Raises:
            MaskcastError: if a library or the encoder is not there, or the encoder has no maps of strides 4 to 32.
        """
        try:
            from torchvision.models.detection import FasterRCNN
            from torchvision.models.detection.anchor_utils import AnchorGenerator
            from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead
            from torchvision.models.detection.rpn import RPNHead
            from torchvision.ops import MultiScaleRoIAlign
        except ModuleNotFoundError as error:
            raise MaskcastError(
                f"arch {self.arch!r} needs {error.name}, which is not installed; "
                "use an image with torchvision (docs/images.md)"
            ) from None

        norm = nn.BatchNorm2d if self.version == 2 else None
        encoder = self.encoder_config.build()
        channels = list(encoder.out_channels)  # type: ignore[arg-type]
        backbone = PyramidBackbone(encoder, channels[-len(LEVELS) :], self.width, norm)
        ratios = (0.5, 1.0, 2.0)
        heads: dict[str, nn.Module] = {}
        if self.version == 2:
            heads["rpn_head"] = RPNHead(self.width, len(ratios), conv_depth=2)
            heads["box_head"] = FastRCNNConvFCHead((self.width, 7, 7), [self.width] * 4, [1024], norm_layer=norm)
        network = FasterRCNN(
            backbone,
            num_classes + 1,
            min_size=self.min_size,
            max_size=self.max_size,
            image_mean=(0.0, 0.0, 0.0),
            image_std=(1.0, 1.0, 1.0),
            rpn_anchor_generator=AnchorGenerator(
                tuple((size,) for size in self.anchor_sizes), (ratios,) * len(self.anchor_sizes)
            ),
            rpn_pre_nms_top_n_train=2 * self.proposals,
            rpn_pre_nms_top_n_test=self.proposals,
            rpn_post_nms_top_n_train=self.proposals,
            rpn_post_nms_top_n_test=self.proposals,
            box_roi_pool=MultiScaleRoIAlign(list(LEVELS), output_size=7, sampling_ratio=2),
            box_batch_size_per_image=self.rois,
            _skip_resize=True,  # in training alone, where augmentation does it
            **heads,
        )
        network.rpn.head.register_forward_hook(_in_float)
        network.roi_heads.box_predictor.register_forward_hook(_in_float)
        return Detector(network, frozen=self.norm == "frozen")

    def start_from(self, detector: Detector, encoder: Path | None) -> None:
        """Gives a new detector the weights that its encoder was pretrained to, if there are any.

        Args:
            detector: what ``build`` returned.
            encoder: what ``pretrain_encoder`` wrote; its colour statistics are taken over, too.

        Raises:
            MaskcastError: if the weights are of another encoder, two are named, or batch norms were to be frozen
                that never learned.
        """
        found = encoder and load_into(detector.encoder, encoder, self.encoder_config, "train_detector.model")
        if found:
            detector.mean.copy_(torch.tensor(found["meta"]["mean"]))
            detector.std.copy_(torch.tensor(found["meta"]["std"]))
        if self.encoder_weights is not None:
            if found:
                raise MaskcastError(
                    f"model.encoder_weights {self.encoder_weights} and the encoder {encoder} both hold weights; "
                    "set model.encoder_weights to null, or pretrain_encoder.method.name to none"
                )
            load_weights(bare(detector.encoder), self.encoder_weights)
        elif not found and self.norm == "frozen":
            raise MaskcastError(
                "model.norm 'frozen' keeps batch norms as they were pretrained, and nothing was; choose 'sync', "
                "or give an encoder or model.encoder_weights"
            )


def _in_float(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Torchvision decodes boxes in the type of the offsets, and bf16 cannot tell pixel 256 from 257."""
    return tuple([x.float() for x in part] if isinstance(part, list) else part.float() for part in outputs)


DetectorConfig = FasterRcnnConfig  # the only one so far; a second makes it a union by `arch`


def load_detector(folder: Path) -> tuple[Detector, dict[str, Any]]:
    """Returns the detector that ``train_detector`` wrote, in eval mode, and its description.

    Raises:
        MaskcastError: if the folder holds no detector or a damaged one.
    """
    detector, description = load_model(folder, DetectorConfig)
    assert isinstance(detector, Detector)
    return detector, description


@torch.inference_mode()
def detect_images(
    detector: Detector, images: Iterable[np.ndarray], precision: str
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns the boxes (N, 4), scores (N,) and labels (N,) of each image, float32 and int64, best first.

    Args:
        detector: in eval mode, on the device where it is to run.
        images: uint8 (H, W, C) each; they are detected together.
        precision: ``bf16`` or ``fp32``.
    """
    device = next(detector.parameters()).device
    batch = [torch.tensor(image).to(device, non_blocking=True) for image in images]
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        found = detector(batch)
    return [
        (
            image["boxes"].float().cpu().numpy(),
            image["scores"].float().cpu().numpy(),
            image["labels"].cpu().numpy(),
        )
        for image in found
    ]
