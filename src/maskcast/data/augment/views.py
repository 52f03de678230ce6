"""Views of frames for self-supervised learning: random crops of one size, flipped and with changed colours.

All random draws use the generator that is passed in, as in ``maskcast.data.augment.colours``.

Legend: H height, W width, C = 3 channels (RGB); all images are uint8.
"""

from copy import deepcopy
from typing import NamedTuple

import cv2
import numpy as np
from pydantic import Field, model_validator

from maskcast.data.augment.colours import GREY, Blur, ColourParams, Probability, recolour_image


class ViewParams(ColourParams):
    """How two views of a frame are made; the defaults are those of MoCo v2 (SimCLR's, but for the size)."""

    size: tuple[int, int] = (64, 64)
    """Height and width of a view; multiples of the stride of the encoder's last feature map."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Minimum and maximum area of the crop, as a fraction of the frame's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Minimum and maximum aspect ratio (width / height) of the crop, drawn uniformly on a log scale."""
    candidates: int = Field(default=1, ge=1, le=1000)
    """Number of crops drawn for the first view, of which the one with the highest contrast is used; more than 1
    finds small objects on a plain background."""
    max_offset: float | None = Field(default=None, ge=0)
    """Maximum distance of the second crop's centre from the first's in either direction, as a fraction of the
    first's size; null puts it anywhere."""
    hflip: Probability = 0.5
    """Probability of a horizontal flip."""
    recolour: Probability = 0.8
    """Probability of changing brightness, contrast, saturation and hue."""
    brightness: float = Field(default=0.4, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=1)
    saturation: float = Field(default=0.4, ge=0, le=1)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    grey: Probability = 0.2
    """Probability of conversion to greyscale."""
    blurred: Probability = 0.5
    """Probability of a blur."""
    blur: Blur = 2.0
    """Maximum standard deviation of the Gaussian blur, in pixels of the view."""

    @model_validator(mode="after")
    def _check_ranges(self) -> "ViewParams":
        if min(self.size) < 8:
            raise ValueError(f"size {self.size} must be a height and a width of at least 8")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale {self.scale} must be two fractions above 0 and at most 1, the smaller first")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio {self.ratio} must be two factors above 0, the smaller first")
        return self


class CropBox(NamedTuple):
    """A crop window, in pixels."""

    top: int
    left: int
    height: int
    width: int


def two_views(
    first_HWC: np.ndarray, second_HWC: np.ndarray, params: ViewParams, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns views of two frames of one video, or two views of one frame; each of size ``params.size``."""
    box = _high_contrast_crop(first_HWC, params, random)
    second_box = random_crop(second_HWC.shape[:2], params, random, None if params.max_offset is None else box)
    return _view(first_HWC, box, params, random), _view(second_HWC, second_box, params, random)


def same_views(
    first_HWC: np.ndarray, second_HWC: np.ndarray, params: ViewParams, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same view of two frames of equal size, by one draw; ``max_offset`` is not used."""
    box = _high_contrast_crop(first_HWC, params, random)
    same_draws = deepcopy(random)
    return _view(first_HWC, box, params, random), _view(second_HWC, box, params, same_draws)


def random_crop(
    shape: tuple[int, ...], params: ViewParams, random: np.random.Generator, near: CropBox | None = None
) -> CropBox:
    """Returns a random crop window.

    Args:
        shape: height and width of the frame.
        params: ranges of area, aspect ratio and offset.
        random: draws the window; its state advances.
        near: window from whose centre it may differ by ``params.max_offset`` times its size; None: it may be
            anywhere.
    """
    area = random.uniform(*params.scale) * shape[0] * shape[1]
    ratio = float(np.exp(random.uniform(*np.log(params.ratio))))
    target_size = np.sqrt(area / ratio), np.sqrt(area * ratio)
    size = np.clip(np.rint(target_size).astype(int), 1, shape)
    max_corner = np.subtract(shape, size)
    if near is None:
        corner = random.integers(0, max_corner + 1)
    else:
        assert params.max_offset is not None
        max_shift = params.max_offset * np.array([near.height, near.width])
        centre = np.array([near.top + near.height / 2, near.left + near.width / 2])
        centre += random.uniform(-max_shift, max_shift)
        corner = np.clip(np.rint(centre - size / 2).astype(int), 0, max_corner)
    return CropBox(int(corner[0]), int(corner[1]), int(size[0]), int(size[1]))


def _high_contrast_crop(frame_HWC: np.ndarray, params: ViewParams, random: np.random.Generator) -> CropBox:
    boxes = [random_crop(frame_HWC.shape[:2], params, random) for _ in range(params.candidates)]
    return max(boxes, key=lambda each: _contrast(frame_HWC, each)) if len(boxes) > 1 else boxes[0]


def _crop(frame_HWC: np.ndarray, box: CropBox) -> np.ndarray:
    return frame_HWC[box.top : box.top + box.height, box.left : box.left + box.width]


def _contrast(frame_HWC: np.ndarray, box: CropBox) -> float:
    """Returns the sum of the channels' standard deviations, computed from every second row and column."""
    _, deviation = cv2.meanStdDev(np.ascontiguousarray(_crop(frame_HWC, box)[::2, ::2]))
    return float(deviation.sum())


def _view(frame_HWC: np.ndarray, box: CropBox, params: ViewParams, random: np.random.Generator) -> np.ndarray:
    height, width = params.size
    shrinks = height <= box.height and width <= box.width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    view_HWC = cv2.resize(np.ascontiguousarray(_crop(frame_HWC, box)), (width, height), interpolation=method)
    if random.random() < params.hflip:
        view_HWC = cv2.flip(view_HWC, 1)
    colours, blur = random.random() < params.recolour, random.random() < params.blurred
    changes = {} if colours else {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    changes |= {} if blur else {"blur": 0.0}
    view_HWC = recolour_image(view_HWC, params.model_copy(update=changes) if changes else params, random)
    if random.random() < params.grey:
        view_HWC = cv2.transform(view_HWC, np.tile(GREY, (3, 1)))
    return view_HWC
