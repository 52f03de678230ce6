"""Runs a detector on images, and returns its boxes, also as records of a COCO results file.

Legend: N boxes per image, H height, W width, C = 3 colour channels.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from maskcast.data.detection.dataset import DetectionSplit
from maskcast.models.arithmetic import autocast
from maskcast.models.base import device_of
from maskcast.models.detection.base import Detector


@torch.inference_mode()
def detect_images(
    detector: Detector, images: Iterable[np.ndarray], precision: str
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns the boxes (N, 4), scores (N,) and labels (N,) of each image, float32 and int64, best first.

    Args:
        detector: in eval mode, on its device.
        images: uint8 (H, W, C) each, for one forward pass.
        precision: ``bf16`` or ``fp32``.
    """
    device = device_of(detector)
    batch = [torch.tensor(image).to(device, non_blocking=True) for image in images]
    with autocast(device, precision):
        predictions = detector(batch)
    return [
        (
            image["boxes"].float().cpu().numpy(),
            image["scores"].float().cpu().numpy(),
            image["labels"].cpu().numpy(),
        )
        for image in predictions
    ]


def detect(
    detector: Detector, split: DetectionSplit, batches: Iterable[Sequence[int]], precision: str
) -> Iterator[dict[str, Any]]:
    """Yields each box as ``image_id``, ``category_id`` 0..K-1, ``bbox`` (x, y, width, height), ``score``.

    Args:
        detector: in eval mode, on its device.
        split: the images.
        batches: indices of images in the split, grouped by forward pass.
        precision: ``bf16`` or ``fp32``.
    """
    for indices in batches:
        predictions = detect_images(detector, [split.image(n) for n in indices], precision)
        for n, (corners_N4, scores_N, labels_N) in zip(indices, predictions, strict=True):
            boxes_N4 = corners_N4.astype(float)
            boxes_N4[:, 2:] -= boxes_N4[:, :2]
            for box, label, score in zip(boxes_N4.tolist(), labels_N.tolist(), scores_N.tolist(), strict=True):
                yield {"image_id": split.ids[n], "category_id": label, "bbox": box, "score": score}
