"""Small helpers that sources share: numeric order, windows, reading and resizing images.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from maskcast.errors import MaskcastError
from maskcast.junk import is_junk
from maskcast.labels import id_key

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


def numeric_sort(paths: Iterable[Path]) -> list[Path]:
    """Sorts paths by the numbers in their file names."""
    return sorted(paths, key=lambda path: id_key(path.name))


def image_files(folder: Path) -> list[Path]:
    """Lists the image files of a folder in numeric order, without junk."""
    return numeric_sort(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not is_junk(p.name))


def window_starts(num_frames: int, frames: int, stride: int, window_step: int) -> list[int]:
    """First frames of the windows of `frames` frames, `stride` apart, that fit into a video.

    Args:
        num_frames: frames of the video.
        frames: frames of a window.
        stride: distance of a window's frames, in frames of the video.
        window_step: distance of consecutive windows, in frames of the video.
    """
    return list(range(0, num_frames - (frames - 1) * stride, window_step))


def read_image(path: Path) -> np.ndarray:
    """Reads an image as RGB (H, W, 3) uint8.

    Raises:
        MaskcastError: when the file is missing, cut short or no image.
    """
    with _open(path) as image:
        return np.asarray(_decoded(path, image).convert("RGB"))


def read_frames(paths: Sequence[Path]) -> np.ndarray:
    """Reads the images of one clip as (T, H, W, 3) uint8.

    Raises:
        MaskcastError: when one cannot be read or two differ in size.
    """
    frames = [read_image(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.shape != frames[0].shape:
            sizes = "{}x{} and {}x{}".format(*frame.shape[:2], *frames[0].shape[:2])
            raise MaskcastError(f"{path}: differs in size from {paths[0]} ({sizes}); export the clip at one size")
    return np.stack(frames)


def read_labels(path: Path) -> np.ndarray:
    """Reads a label image (H, W) uint8: the index of a palette image or the value of a grey one.

    Raises:
        MaskcastError: when the file cannot be read or holds colours instead of labels.
    """
    with _open(path) as image:
        labels = np.asarray(_decoded(path, image))
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.ndim != 2 or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 255:
        raise MaskcastError(
            f"{path}: a mask must be a palette or grey image with values 0..255, not of mode {image.mode}; "
            "export the labels as an index image"
        )
    return labels.astype(np.uint8)


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes frames (T, H, W, 3) or mattes (T, H, W), uint8, by area when shrinking, else bilinear."""
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = height <= frames.shape[1] and width <= frames.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (width, height), interpolation=method) for frame in frames])


def resize_masks(masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes masks (T, H, W) of ids to (T, height, width) by the nearest pixel: no label is invented."""
    if masks.shape[1:3] == (height, width):
        return masks
    rows = ((np.arange(height) + 0.5) * masks.shape[1] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * masks.shape[2] / width).astype(np.intp)
    return np.ascontiguousarray(masks[:, rows[:, None], columns[None, :]])


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except FileNotFoundError:
        raise MaskcastError(f"{path}: no such image") from None
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MaskcastError(f"{path}: not a readable image ({error}); copy it again from its origin") from error


def _decoded(path: Path, image: Image.Image) -> Image.Image:
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise MaskcastError(f"{path}: the image is damaged ({error}); copy it again from its origin") from error
    return image
