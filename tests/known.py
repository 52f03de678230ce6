"""Models whose answers are known: no test hangs on what a toy training reaches on one kind of CPU."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maskcast.data.detection.dataset import DetectionSet
from maskcast.models.segmentation.base import Segmenter

THRESHOLD = 0.8  # of what normalised red and blue are: about 1.6 in their square, below -0.3 elsewhere
SURE = 0.5


def know_squares(masker: Segmenter) -> Segmenter:
    """Sets a U-Net's weights to the right answer for `moving_squares`: red is class 1, blue is class 2.

    Two channels, red and blue above grey, pass the finest level from end to end; all else is 0.
    """
    weights = masker.state_dict()
    for name, value in weights.items():
        if (name.endswith("weight") and value.dim() == 4) or name.startswith("network.head"):
            value.zero_()
    skipped = weights["network.up.0.0.weight"].shape[1] - weights["network.up.0.0.weight"].shape[0]
    for channel, colour in enumerate((0, 2)):
        weights["network.down.0.0.weight"][channel, colour, 1, 1] = 1
        weights["network.down.0.3.weight"][channel, channel, 1, 1] = 1
        weights["network.up.0.0.weight"][channel, skipped + channel, 1, 1] = 1
        weights["network.up.0.3.weight"][channel, channel, 1, 1] = 1
        weights["network.head.weight"][1 + channel, channel] = 5
    weights["network.head.bias"][0] = 5 * THRESHOLD
    return masker


def know_own_boxes(detector: nn.Module, dataset: Path, split: str) -> nn.Module:
    """Makes what a detector of random weights is sure of the truth of a split, so that it knows every box of it.

    The weights of its classes grow, so that it is sure of one class a box. Images without boxes stay without.
    """
    with torch.no_grad():
        detector.network.roi_heads.box_predictor.cls_score.weight.mul_(100)  # type: ignore[union-attr, operator]
    images = DetectionSet(dataset).split(split)
    content = json.loads((dataset / f"{split}.json").read_text())
    with_boxes = {one["image_id"] for one in content["annotations"]}
    annotations: list[dict[str, Any]] = []
    for number, image_id in enumerate(images.ids):
        if image_id not in with_boxes:
            continue
        with torch.no_grad():
            (found,) = detector.eval()([torch.tensor(images.image(number))])
        for k in (found["scores"] >= SURE).nonzero()[:, 0].tolist():
            x1, y1, x2, y2 = found["boxes"][k].tolist()
            one = {"id": len(annotations) + 1, "image_id": image_id, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            label = int(found["labels"][k])
            annotations.append(one | {"category_id": label, "area": (x2 - x1) * (y2 - y1), "iscrowd": 0})
    assert {one["category_id"] for one in annotations} == {0, 1}, "take another seed for the detector's weights"
    raw = json.dumps(content | {"annotations": annotations}).encode()
    (dataset / f"{split}.json").write_bytes(raw)
    about = json.loads((dataset / "dataset.json").read_text())
    about["splits"][split] = {"sha256": hashlib.sha256(raw).hexdigest()}
    (dataset / "dataset.json").write_text(json.dumps(about))
    return detector
