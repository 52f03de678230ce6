"""Reading, writing, sorting and resizing of images.

Shapes: T frames, H rows, W columns.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np

from maskcast.data.decoding import decode
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.labels import LabelError, natural_sort_key

LOW_16_BIT = 4096  # if no 16-bit value is above this, the image is black, or really has 10 or 12 bits
MIN_LIKENESS = 0.9  # of two aspect ratios: rounding of small sizes, which changes more, is not told from cropping
Size = tuple[int, int]  # height and width
RESIZE = "cv2.INTER_AREA if no side grows, else cv2.INTER_LINEAR"  # of `resize_frames`, as clients are told
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


def numeric_sort(paths: Iterable[Path]) -> list[Path]:
    """Sorts paths by the numbers in their file names."""
    return sorted(paths, key=lambda path: natural_sort_key(path.name))


def image_files(folder: Path) -> list[Path]:
    """Lists the image files of a folder in numeric order, without junk."""
    return numeric_sort(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not is_junk(p.name))


def read_image(path: Path) -> np.ndarray:
    """Reads an image, upright, as RGB (H, W, 3) uint8.

    The EXIF orientation is applied. Samples of more than 8 bits are scaled from the declared depth, floats from
    0..1. Palettes become colours, CMYK is converted without its profile, and alpha is dropped.

    Raises:
        MaskcastError: if the file is missing, damaged, not an image, has several pages, or has values of unknown
            scale.
    """
    return read_frames([path])[0]


def write_image(path: Path, pixels: np.ndarray) -> None:
    """Writes an image like `cv2.imwrite`, but raises an error on failure.

    Args:
        path: its ending determines the format.
        pixels: (H, W) or (H, W, 3) in OpenCV's order, BGR.

    Raises:
        OSError: it cannot be written, e.g. on a full disk.
    """
    path.write_bytes(cv2.imencode(path.suffix, pixels)[1].tobytes())


def read_frames(paths: Sequence[Path]) -> np.ndarray:
    """Reads the images of one clip as (T, H, W, 3) uint8, see `read_image`.

    Raises:
        MaskcastError: if there are none, one cannot be read, sizes differ, or all declare 16 bits but use at most
            12.
    """
    return read_resized_frames(paths, None)[0]


def read_resized_frames(paths: Sequence[Path], size: Size | None) -> tuple[np.ndarray, Size]:
    """Reads the images of one clip, resizing each as it is read.

    Args:
        paths: the images.
        size: (height, width) of the result; None keeps their size.

    Returns:
        RGB frames (T, H, W, 3) uint8, and the size that they had in their files.

    Raises:
        MaskcastError: as in `read_frames`.
    """
    if not paths:
        raise MaskcastError("a clip without images; give the paths of its images")
    brightest, read = 0, list[tuple[np.ndarray, Size]]()
    for path in paths:
        frame_HWC, maximum = _read_rgb(path)
        brightest = max(brightest, maximum)
        read.append(resize_frame(frame_HWC, size))
    frames, sizes = zip(*read, strict=True)
    if (odd_frame := find_odd_size(sizes)) is not None:
        number, text = odd_frame
        raise MaskcastError(f"{paths[number]}: {text}; export it at the size of the others, or remove it")
    if brightest < LOW_16_BIT:
        raise MaskcastError(
            f"{paths[0]}: declares 16 bits, and no value is above {brightest}: it would be black, or has "
            "fewer bits; save it as 8 bits, or scaled to all 16"
        )
    return np.stack(frames), sizes[0]


def resize_frame(frame_HWC: np.ndarray, size: Size | None) -> tuple[np.ndarray, Size]:
    """Returns a frame at a size, or as it is for None, and the size that it had.

    Frames that are resized one by one, as they are read, are not in memory at their own size together.
    """
    resized_HWC = frame_HWC if size is None else resize_frames(frame_HWC[None], *size)[0]
    return resized_HWC, (frame_HWC.shape[0], frame_HWC.shape[1])


def find_odd_size(sizes: Sequence[Size]) -> tuple[int, str] | None:
    """Returns the index of the first unusual size and a text with both sizes; None if all are equal."""
    counts = Counter(sizes)
    if len(counts) <= 1:
        return None
    (usual_size, count), *_ = counts.most_common(1)
    number = next(k for k, size in enumerate(sizes) if size != usual_size)
    odd, usual = ("{}x{}".format(*size) for size in (sizes[number], usual_size))
    return number, f"is {odd}, {count} of {len(sizes)} frames are {usual} (height x width)"


def check_mask_size(
    mask: object, mask_size: Size, frame: object, frame_size: Size, *, may_be_scaled: bool = False
) -> None:
    """Refuses a mask whose size differs from its frame's.

    Args:
        mask: name of the mask in errors.
        mask_size: its height and width.
        frame: name of the frame in errors.
        frame_size: its height and width.
        may_be_scaled: whether another size of the same aspect ratio will do (see ``have_one_aspect``).

    Raises:
        LabelError: names both.
    """
    if mask_size != frame_size and not (may_be_scaled and have_one_aspect(mask_size, frame_size)):
        hint = "one of them is rotated: " if mask_size == frame_size[::-1] else ""
        raise LabelError(
            f"{mask}: is {mask_size[1]}x{mask_size[0]}, {frame} is {frame_size[1]}x{frame_size[0]} (width x "
            f"height); {hint}export both at one size"
        )


def have_one_aspect(one: tuple[float, float], other: tuple[float, float], rounding: float = 1) -> bool:
    """Whether two sizes (height, width) have one aspect ratio, up to rounding: neither is rotated or cropped.

    Args:
        one: a size.
        other: another.
        rounding: pixels by which each side of the smaller size may have been rounded; less than 1 for a picture
            that was scaled, to the nearest pixel or down.
    """
    (height, width), (whole_height, whole_width) = sorted((one, other))
    least, greatest = (width - rounding) * whole_height, (width + rounding) * whole_height
    rounded = least < whole_width * (height + rounding) and whole_width * (height - rounding) < greatest
    ratios = whole_width * height, width * whole_height
    return rounded and min(ratios) >= MIN_LIKENESS * max(ratios)


def resize_frames(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes frames (T, H, W, 3) or mattes (T, H, W), uint8: by area averaging if no side grows, else bilinearly.

    Models get frames resized like this. Other ways give other masks.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = height <= frames.shape[1] and width <= frames.shape[2]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (width, height), interpolation=interpolation) for frame in frames])


def resize_masks(masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes masks (T, H, W) of ids to (T, height, width) by nearest neighbour, so that no new id appears."""
    if masks.shape[1:3] == (height, width):
        return masks
    rows = ((np.arange(height) + 0.5) * masks.shape[1] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * masks.shape[2] / width).astype(np.intp)
    return np.ascontiguousarray(masks[:, rows[:, None], columns[None, :]])


def _read_rgb(path: Path) -> tuple[np.ndarray, int]:
    """Returns an image (H, W, 3) uint8, and its maximum value if it declares 16 bits, else `LOW_16_BIT`."""
    decoded = decode(path)
    mode, depth, maximum = decoded.image.mode, decoded.depth, LOW_16_BIT
    if mode == "F":
        return decoded.upright(_grey_to_rgb(_floats_to_uint8(path, np.asarray(decoded.image)))), LOW_16_BIT
    if mode.startswith("I") and depth > 16:
        raise MaskcastError(f"{path}: integers of {depth} bits are not supported; save it as 8 or 16 bits")
    if depth <= 8:
        try:
            # Via RGBA, because Pillow warns about palettes with alpha otherwise.
            image = decoded.image.convert("RGBA") if mode in ("P", "PA") else decoded.image
            return decoded.upright(np.asarray(image.convert("RGB"))), LOW_16_BIT
        except ValueError:
            raise MaskcastError(f"{path}: colour mode {mode} is not supported; save it as RGB") from None
    pixels = np.asarray(decoded.image) if mode.startswith("I") else decoded.deep_pixels()
    if pixels is None:
        raise MaskcastError(f"{path}: colours of {depth} bits are not supported in this format; save it as PNG")
    if depth == 16:
        maximum = int(pixels.max())
    scaled = np.rint(pixels.astype(np.float32) * (255 / (2**depth - 1))).clip(0, 255).astype(np.uint8)
    return decoded.upright(_grey_to_rgb(scaled) if scaled.ndim == 2 else scaled), maximum


def _grey_to_rgb(pixels_HW: np.ndarray) -> np.ndarray:
    return np.repeat(pixels_HW[..., None], 3, axis=2)


def _floats_to_uint8(path: Path, pixels_HW: np.ndarray) -> np.ndarray:
    """Returns floats in 0..1 as uint8."""
    low, high = float(pixels_HW.min()), float(pixels_HW.max())
    if not 0 <= low <= high <= 1:  # also false for NaN
        raise MaskcastError(
            f"{path}: has floats from {low:g} to {high:g}, but only 0 to 1 is supported; save it as 8 bits"
        )
    return np.rint(pixels_HW * 255).astype(np.uint8)
