"""Faster R-CNN (Ren et al. 2015, arXiv 1506.01497) on a feature pyramid (Lin et al. 2017, arXiv 1612.03144).

Wraps torchvision's network. Torchvision is imported when a network is built, because that takes seconds.

Legend: N boxes per image, H height, W width, C = 3 colour channels. Boxes are (x1, y1, x2, y2) in pixels, labels
0..K-1. In torchvision class 0 is the background, so labels are shifted by one on input and output.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from maskcast.errors import MaskcastError
from maskcast.models.arithmetic import has_kernels
from maskcast.models.detection.base import Detector
from maskcast.models.detection.batched import BatchedLosses
from maskcast.models.detection.configs import FasterRcnnConfig
from maskcast.models.encoders.smp import check_pyramid

LEVELS = ("0", "1", "2", "3")  # levels of the pyramid that the box head uses, strides 4 to 32


class FasterRcnn(Detector):
    """Faster R-CNN.

    Args:
        network: torchvision's, for K + 1 classes, without normalisation and without resizing in training.
        frozen: whether the encoder's batch norms keep their statistics and weights also in training.
    """

    def __init__(self, network: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.network, self.frozen = network, frozen
        self._batched = BatchedLosses(network)
        if frozen:
            for norm in self._frozen_norms():
                norm.requires_grad_(False)

    @property
    def encoder(self) -> nn.Module:
        """The backbone without the pyramid."""
        return self.network.get_submodule("backbone.encoder")

    @property
    def most_boxes(self) -> int:
        """Most boxes that are found in an image."""
        return int(self.network.roi_heads.detections_per_img)  # type: ignore[union-attr, arg-type]

    @property
    def same_each_step(self) -> bool:
        """Whether the losses of a whole batch are computed at once."""
        return has_kernels(self.mean)

    def train(self, mode: bool = True) -> "FasterRcnn":
        """Sets the mode; frozen batch norms stay in eval mode."""
        super().train(mode)
        if self.frozen:
            for norm in self._frozen_norms():
                norm.eval()
        return self

    def losses(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Returns the four losses of a batch (see :class:`Detector`).

        ``loss_objectness`` and ``loss_rpn_box_reg`` are of the proposals, ``loss_classifier`` and ``loss_box_reg``
        of the boxes.
        """
        if self.same_each_step:
            return self._batched(self.normalised(images), boxes, labels)
        boxes = [box[label >= 0] for box, label in zip(boxes, labels, strict=True)]
        labels = [label[label >= 0] for label in labels]
        targets = [{"boxes": box, "labels": label + 1} for box, label in zip(boxes, labels, strict=True)]
        return self.network(self.normalised(images), targets)

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Returns the boxes of each image (see :class:`Detector`).

        Raises:
            MaskcastError: an image is so elongated that its shorter side would be resized to 0 pixels.
        """
        max_ratio = int(self.network.transform.max_size)  # type: ignore[union-attr, arg-type]
        for height, width in (image.shape[:2] for image in images):
            if max_ratio * min(height, width) <= max(height, width):
                raise MaskcastError(
                    f"an image of {height} x {width}: aspect ratio must be below {max_ratio} (model.max_size); "
                    "split the image"
                )
        detections: list[dict[str, Tensor]] = self.network(self.normalised(images))
        return [image | {"labels": image["labels"] - 1} for image in detections]

    def _frozen_norms(self) -> list[nn.Module]:
        return [module for module in self.encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


class PyramidBackbone(nn.Module):
    """A feature pyramid of ``width`` channels on maps of strides 4 to 32, plus one coarser level."""

    def __init__(self, encoder: nn.Module, channels: Sequence[int], width: int, norm: Any) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.encoder, self.out_channels = encoder, width
        self.fpn = FeaturePyramidNetwork(list(channels), width, extra_blocks=LastLevelMaxPool(), norm_layer=norm)

    def forward(self, x_BCHW: Tensor) -> dict[str, Tensor]:
        """Returns the maps by level."""
        maps = self.encoder(x_BCHW)[-len(LEVELS) :]
        return self.fpn(OrderedDict(zip(LEVELS, maps, strict=True)))


def build_faster_rcnn(config: FasterRcnnConfig, num_classes: int) -> FasterRcnn:
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
            f"arch {config.arch!r} needs {error.name}, which is not installed; "
            "use an image with torchvision (docs/images.md)"
        ) from None

    norm = nn.BatchNorm2d if config.version == 2 else None
    check_pyramid(config.encoder, config.arch)
    encoder = config.encoder_config.build()
    channels = list(encoder.out_channels)  # type: ignore[arg-type]
    backbone = PyramidBackbone(encoder, channels[-len(LEVELS) :], config.width, norm)
    ratios = (0.5, 1.0, 2.0)
    heads: dict[str, nn.Module] = {}
    if config.version == 2:
        heads["rpn_head"] = RPNHead(config.width, len(ratios), conv_depth=2)
        heads["box_head"] = FastRCNNConvFCHead((config.width, 7, 7), [config.width] * 4, [1024], norm_layer=norm)
    network = FasterRCNN(
        backbone,
        num_classes + 1,
        min_size=config.min_size,
        max_size=config.max_size,
        image_mean=(0.0, 0.0, 0.0),
        image_std=(1.0, 1.0, 1.0),
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in config.anchor_sizes), (ratios,) * len(config.anchor_sizes)
        ),
        rpn_pre_nms_top_n_train=2 * config.proposals,
        rpn_pre_nms_top_n_test=config.proposals,
        rpn_post_nms_top_n_train=config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        box_roi_pool=MultiScaleRoIAlign(list(LEVELS), output_size=7, sampling_ratio=2),
        box_batch_size_per_image=config.rois,
        _skip_resize=True,  # in training alone, where augmentation does it
        **heads,
    )
    network.rpn.head.register_forward_hook(_in_float)
    network.roi_heads.box_predictor.register_forward_hook(_in_float)
    return FasterRcnn(network, frozen=config.norm == "frozen")


def _in_float(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """A hook: torchvision decodes boxes in the type of the offsets, and bf16 cannot tell pixel 256 from 257."""
    return tuple([x.float() for x in part] if isinstance(part, list) else part.float() for part in outputs)
