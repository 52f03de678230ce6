"""Backgrounds (a colour, an image or a video), and the composition of a foreground with them.

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
from maskcast.serving.video_stream import open_stream
from maskcast.serving.videos import video_digest

ALLOWED = "an image, a video, a folder of images, or a colour such as white or #00b140"


class Background:
    """A background of unlimited length: a video is repeated.

    Args:
        given: a path or a colour.

    Attributes:
        name: the colour, or the name of the file or folder.
        digest: of the file or folder; None for a colour.

    Raises:
        MaskcastError: it is neither a supported file nor a colour, or cannot be read.
    """

    def __init__(self, given: str) -> None:
        self._path, self._still = Path(given), None
        self.name, self.digest = self._path.name, None
        if not self._path.exists():
            self._still = _colour(given)
        elif self._path.suffix.lower() in IMAGE_SUFFIXES and self._path.is_file():
            self._still = read_image(self._path)
        elif self._path.suffix.lower() not in VIDEO_SUFFIXES and not self._path.is_dir():
            raise MaskcastError(f"--background {given}: unsupported file type; give {ALLOWED}")
        if self._path.exists():
            self.digest = video_digest(self._path)
        next(self.fitted(1, 1))

    def fitted(self, height: int, width: int) -> Iterator[np.ndarray]:
        """Yields images (H, W, C) of the given size, resized to cover it and cropped."""
        if self._still is not None:
            yield from repeat(_covering(self._still, height, width))
        while True:
            with open_stream(self._path) as video:
                for frame_HWC, _ in video.play(lambda *_: None):
                    yield _covering(frame_HWC, height, width)


def compose(frame_HWC: np.ndarray, opacity_HW: np.ndarray, background_HWC: np.ndarray) -> np.ndarray:
    """Composes a frame with a background: ``(a F + (255 - a) B) / 255``, rounded."""
    opacity_HW1 = opacity_HW[..., None].astype(np.uint16)  # the largest sum, 255 * 255 + 127, is in its range
    sum_HWC = opacity_HW1 * frame_HWC
    sum_HWC += (255 - opacity_HW1) * background_HWC
    sum_HWC += 127
    sum_HWC //= 255
    return sum_HWC.astype(np.uint8)


def _colour(given: str) -> np.ndarray:
    """Returns a colour as one pixel (1, 1, C)."""
    try:
        return np.array(ImageColor.getrgb(given)[:3], np.uint8)[None, None]
    except ValueError:
        raise MaskcastError(
            f"--background {given}: neither an existing file nor a colour; give {ALLOWED}"
        ) from None


def _covering(picture_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an image to cover a size, and crops its centre."""
    rows, columns = picture_HWC.shape[:2]
    scale = max(height / rows, width / columns)
    size = max(height, round(rows * scale)), max(width, round(columns * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    whole = cv2.resize(picture_HWC, size[::-1], interpolation=method)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return whole[top : top + height, left : left + width]
