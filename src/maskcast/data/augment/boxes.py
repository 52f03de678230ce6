"""Augmentation that transforms an image together with its boxes.

All random draws use the generator that is passed in. Images of a data set may have different sizes.

Legend: H height, W width, C = 3 channels (RGB), N boxes; images are uint8, boxes float32 (x1, y1, x2, y2), pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from pydantic import Field, model_validator

from maskcast.data.augment.colours import Blur, ColourParams, Probability, recolour_image
from maskcast.data.augment.strong import StrongColours

MIN_BOX_SIDE = 1.0  # pixels; boxes with a shorter side after cropping are dropped
MAX_SCALE = 10  # limit, because the whole image is magnified before it is cropped


class BoxAugmentParams(ColourParams):
    """What may change about a training image; the defaults change nothing but its mirror image."""

    hflip: Probability = 0.5
    """Probability of a horizontal flip, which swaps the classes of `source.mirror_swaps`."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Large-scale jitter (Ghiasi et al. 2021, arXiv 2012.07177): minimum and maximum magnification relative to the
    validation size, drawn uniformly on a log scale; images that grow beyond that size are cropped at random."""

    @model_validator(mode="after")
    def _check_scale(self) -> "BoxAugmentParams":
        if not 0 < self.scale[0] <= self.scale[1] <= MAX_SCALE:
            raise ValueError(
                f"scale {self.scale} must be two factors above 0 and at most {MAX_SCALE}, the smaller first"
            )
        return self


@dataclass(frozen=True)
class Sample:
    """An image with its boxes."""

    image_HWC: np.ndarray
    boxes_N4: np.ndarray
    labels_N: np.ndarray
    """int64 class ids."""


def resized_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Returns the size with shorter side ``min_size``; smaller if the longer side would exceed ``max_size``."""
    factor = min(min_size / min(height, width), max_size / max(height, width))
    return max(1, int(height * factor)), max(1, int(width * factor))


def transform(
    sample: Sample,
    size: tuple[int, int],
    params: BoxAugmentParams,
    random: np.random.Generator,
    swapped_K: np.ndarray | None = None,
) -> Sample:
    """Returns a resized, cropped and randomly flipped copy.

    Args:
        sample: the input.
        size: height and width without scale jitter, and the maximum size of the result.
        params: ranges of the changes.
        random: draws the changes; its state advances.
        swapped_K: which class each class becomes in a mirror image; None if no class changes.
    """
    height, width = sample.image_HWC.shape[:2]
    factor = float(np.exp(random.uniform(*np.log(params.scale))))
    new_height, new_width = (max(1, round(side * factor)) for side in size)
    rows, columns = min(new_height, size[0]), min(new_width, size[1])
    top, left = (
        int(random.integers(whole - part + 1)) for whole, part in ((new_height, rows), (new_width, columns))
    )
    # as in torchvision
    image = cv2.resize(sample.image_HWC, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    image = image[top : top + rows, left : left + columns]
    scale_4 = np.array([new_width / width, new_height / height] * 2)
    boxes = sample.boxes_N4 * scale_4 - np.array([left, top] * 2)
    boxes = boxes.clip(0, np.array([columns, rows] * 2))
    labels_N = sample.labels_N
    if random.random() < params.hflip:
        labels_N = labels_N if swapped_K is None else swapped_K[labels_N]
        image = image[:, ::-1]
        boxes = np.column_stack([columns - boxes[:, 2], boxes[:, 1], columns - boxes[:, 0], boxes[:, 3]])
    kept = (boxes[:, 2:] - boxes[:, :2] >= MIN_BOX_SIDE).all(1)
    return Sample(np.ascontiguousarray(image), boxes[kept].astype(np.float32), labels_N[kept])


def augment_boxes(
    sample: Sample,
    size: tuple[int, int],
    params: BoxAugmentParams,
    random: np.random.Generator,
    swapped_K: np.ndarray | None = None,
) -> Sample:
    """Returns a copy with changed geometry and colours; see :func:`transform`."""
    transformed = transform(sample, size, params, random, swapped_K)
    return Sample(
        recolour_image(transformed.image_HWC, params, random), transformed.boxes_N4, transformed.labels_N
    )


class StrongParams(StrongColours):
    """What the student's view of an unlabelled image has more than the teacher's; boxes stay where they are."""

    blur: Blur = 1.5
    patches: int = Field(default=3, ge=0, le=1000)
    """Maximum number of rectangles of noise (cutout, DeVries and Taylor 2017, arXiv 1708.04552), each at most a
    tenth of the area."""


def strong_view(image_HWC: np.ndarray, params: StrongParams, random: np.random.Generator) -> np.ndarray:
    """Returns an image with changed colours and rectangles of noise."""
    image = recolour_image(image_HWC, params, random)
    height, width = image.shape[:2]
    for _ in range(int(random.integers(params.patches + 1))):
        area, ratio = 0.1 * random.uniform(0.2, 1) * height * width, np.exp(random.uniform(-1, 1))
        rows, columns = min(height, round((area * ratio) ** 0.5) + 1), min(width, round((area / ratio) ** 0.5) + 1)
        top, left = int(random.integers(height - rows + 1)), int(random.integers(width - columns + 1))
        noise = random.integers(0, 256, (rows, columns, 3), dtype=np.uint8)
        image[top : top + rows, left : left + columns] = noise
    return image
