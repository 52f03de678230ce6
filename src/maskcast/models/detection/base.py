"""The base of detectors: images in, boxes with scores and classes out; normalisation is part of the network.

Legend: N boxes per image, H height, W width, C = 3 colour channels. Boxes are (x1, y1, x2, y2) in pixels, labels
0..K-1: there is no background class.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Detector(nn.Module, ABC):
    """Base of all detectors, for uint8 RGB images of any size.

    ``mean`` and ``std``, per channel of images scaled to [0, 1], are buffers saved with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN))
        self.register_buffer("std", torch.tensor(IMAGENET_STD))

    @property
    def same_each_step(self) -> bool:
        """Whether ``losses`` does the same on the host for all batches of one shape and never waits for a GPU."""
        return False

    @property
    @abstractmethod
    def encoder(self) -> nn.Module:
        """The part that can be pretrained without boxes."""

    @property
    @abstractmethod
    def most_boxes(self) -> int:
        """Most boxes that are found in an image."""

    @abstractmethod
    def losses(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """Returns the terms of a batch's loss by name, in training mode.

        Args:
            images: uint8 (H, W, C) each, in the size that the network sees.
            boxes: float32 (N, 4) each; an image may have none.
            labels: int64 (N,) each; rows with a negative label are padding.
        """

    @abstractmethod
    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Returns ``boxes`` (N, 4), ``labels`` (N,) and ``scores`` (N,) of each image, in eval mode, best first.

        Args:
            images: uint8 (H, W, C) each; they are resized for the network, and boxes are those of the image given.
        """

    def normalised(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Returns images as float32 (C, H, W), normalised by ``mean`` and ``std``."""
        return [((image.float() / 255 - self.mean) / self.std).permute(2, 0, 1).contiguous() for image in images]
