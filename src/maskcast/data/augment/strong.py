"""Strong views of frames for teacher-student training, in which the teacher sees the weak view.

A strong view has the geometry of the weak view but other colours, and a rectangle of another frame (CutMix).

Legend: T frames, H height, W width, C = 3 channels (RGB); frames are uint8.
"""

import numpy as np
from pydantic import Field

from maskcast.data.augment.colours import Blur, ColourParams, draw_colour_transform, recolour

CUTMIX_AREA = (0.02, 0.4)  # minimum and maximum area of the rectangle, as a fraction of the frame; from UniMatch
CUTMIX_RATIO = 0.3  # minimum width / height; the maximum is the inverse


class StrongColours(ColourParams):
    """What the student's view has more than the teacher's."""

    brightness: float = Field(default=0.4, ge=0, le=1)
    contrast: float = Field(default=0.4, ge=0, le=1)
    saturation: float = Field(default=0.4, ge=0, le=1)
    blur: Blur = 1.0


def strong_colours(frames_THWC: np.ndarray, params: StrongColours, random: np.random.Generator) -> np.ndarray:
    """Returns the frames of a clip with changed colours, the same change for all."""
    return recolour(frames_THWC, draw_colour_transform(params, frames_THWC.shape, random))


def cutmix_box(size: tuple[int, int], random: np.random.Generator) -> tuple[int, int, int, int]:
    """Returns top, left, bottom and right of a random rectangle in a frame of this size."""
    height, width = size
    area = random.uniform(*CUTMIX_AREA) * height * width
    ratio = float(np.exp(random.uniform(np.log(CUTMIX_RATIO), -np.log(CUTMIX_RATIO))))
    rows = min(height, max(1, round((area / ratio) ** 0.5)))
    columns = min(width, max(1, round((area * ratio) ** 0.5)))
    top, left = (int(random.integers(whole - part + 1)) for whole, part in ((height, rows), (width, columns)))
    return top, left, top + rows, left + columns
