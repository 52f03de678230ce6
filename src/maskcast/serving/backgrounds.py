"""What a foreground is put before: a colour, an image or a video; and putting it there.

Legend: H height, W width, C = 3 channels (RGB); arrays are uint8.
"""

from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from PIL import ImageColor

from maskcast.data.images import IMAGE_SUFFIXES, read_image
from maskcast.data.video_files.frames import VIDEO_SUFFIXES
from maskcast.errors import MaskcastError
from maskcast.serving.playing import playing

ALLOWED = "an image, a video, a folder of images, or a colour such as white or #00b140"


class Background:
    """A background that lasts as long as is asked for: a video begins again at its end.

    Args:
        given: a path or a colour.

    Raises:
        MaskcastError: it is neither, or cannot be read.
    """

    def __init__(self, given: str) -> None:
        self._path, self._still = Path(given), None
        if not self._path.exists():
            self._still = _colour(given)
        elif self._path.suffix.lower() in IMAGE_SUFFIXES and self._path.is_file():
            self._still = read_image(self._path)
        elif self._path.suffix.lower() not in VIDEO_SUFFIXES and not self._path.is_dir():
            raise MaskcastError(f"--background {given}: of a kind that is not read; give {ALLOWED}")
        next(self.fitted(1, 1))

    def fitted(self, height: int, width: int) -> Iterator[np.ndarray]:
        """Yields pictures (H, W, C) of a size, which the background covers; what sticks out is cut off."""
        if self._still is not None:
            yield from repeat(_covering(self._still, height, width))
        while True:
            with playing(self._path) as video:
                for frame_HWC, _ in video.play(lambda *_: None):
                    yield _covering(frame_HWC, height, width)


def compose(frame_HWC: np.ndarray, opacity_HW: np.ndarray, background_HWC: np.ndarray) -> np.ndarray:
    """Returns a frame before a background: ``(a F + (255 - a) B) / 255``, rounded."""
    opacity_HW1 = opacity_HW[..., None].astype(np.uint32)
    sum_HWC = opacity_HW1 * frame_HWC + (255 - opacity_HW1) * background_HWC
    return ((sum_HWC + 127) // 255).astype(np.uint8)


def _colour(given: str) -> np.ndarray:
    """Returns a colour as one pixel (1, 1, C)."""
    try:
        return np.array(ImageColor.getrgb(given)[:3], np.uint8)[None, None]
    except ValueError:
        raise MaskcastError(f"--background {given}: no such file, and no colour; give {ALLOWED}") from None


def _covering(picture_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a picture enlarged or shrunk until it covers a size, and the middle of it."""
    rows, columns = picture_HWC.shape[:2]
    scale = max(height / rows, width / columns)
    size = max(height, round(rows * scale)), max(width, round(columns * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    whole = cv2.resize(picture_HWC, size[::-1], interpolation=method)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return whole[top : top + height, left : left + width]
