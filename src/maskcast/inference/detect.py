"""Detections of a detector as records of a COCO results file."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from maskcast.data.detection import DetectionSplit
from maskcast.models.detection.faster_rcnn import Detector, detect_images


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
    for places in batches:
        found = detect_images(detector, [split.image(n) for n in places], precision)
        for n, (corners_N4, scores_N, labels_N) in zip(places, found, strict=True):
            boxes_N4 = corners_N4.astype(float)
            boxes_N4[:, 2:] -= boxes_N4[:, :2]
            for box, label, score in zip(boxes_N4.tolist(), labels_N.tolist(), scores_N.tolist(), strict=True):
                yield {"image_id": split.ids[n], "category_id": label, "bbox": box, "score": score}
