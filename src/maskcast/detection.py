"""Detections of a detector as records of a COCO results file."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch

from maskcast.data.detection import DetectionSplit
from maskcast.models.detectors import Detector


def batches(count: int, size: int) -> list[range]:
    """Returns the places 0 to ``count`` - 1, ``size`` together."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def detect(
    detector: Detector, split: DetectionSplit, batches: Iterable[Sequence[int]], precision: str
) -> Iterator[dict[str, Any]]:
    """Yields each box found: ``image_id``, ``category_id`` 0..K-1, ``bbox`` (x, y, width, height), ``score``.

    Args:
        detector: in eval mode, on the device where it is to run.
        split: the images.
        batches: places of images in the split, those that are detected at once together.
        precision: ``bf16`` or ``fp32``.
    """
    device = next(detector.parameters()).device
    for places in batches:
        images = [torch.tensor(split.image(n)).to(device, non_blocking=True) for n in places]
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            found = detector(images)
        for n, image in zip(places, found, strict=True):
            boxes_N4 = image["boxes"].float().cpu().numpy().astype(float)
            boxes_N4[:, 2:] -= boxes_N4[:, :2]
            labels, scores = image["labels"].tolist(), image["scores"].float().tolist()
            for box, label, score in zip(boxes_N4.tolist(), labels, scores, strict=True):
                yield {"image_id": split.ids[n], "category_id": label, "bbox": box, "score": score}
