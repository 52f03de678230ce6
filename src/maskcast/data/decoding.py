"""Decodes users' image files: complete, single-page, with their true bit depth and orientation.

Shapes: H rows, W columns, C channels.
"""

import io
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from maskcast.errors import MaskcastError
from maskcast.reading import LFS_HEAD, LFS_POINTER, open_file, parsing, read_file, reason_of

ORIENTATION, SUBFILE, BITS, PHOTOMETRIC, MAX_SAMPLE = 0x0112, 254, 258, 262, 281  # EXIF and TIFF tags
# Pillow warns about many pixels without the file's name; twice as many raise an error, which is renamed here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Broken metadata of a camera or program: either the picture is complete, or decoding raises its own error.
warnings.filterwarnings("ignore", "Corrupt EXIF data|Truncated File Read|Metadata Warning", UserWarning)


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image file, with its pixels as stored.

    Attributes:
        image: in the mode of the file; its pixels are not rotated yet.
        orientation: EXIF orientation, 1 to 8, which `upright` applies.
        depth: bits per sample, as the file declares.
        lossy: whether the compression changes values.
        content: bytes of the file.
        is_upright: whether the pixels have been rotated already, as Pillow does for TIFF.
    """

    image: Image.Image
    orientation: int
    depth: int
    lossy: bool
    content: bytes
    is_upright: bool

    def alpha(self) -> np.ndarray | None:
        """Returns the alpha channel (H, W) as stored; None if there is none, or if it is the same everywhere."""
        if "A" not in self.image.getbands():
            return None
        alpha_HW = np.asarray(self.image.getchannel("A"))
        return alpha_HW if (alpha_HW != alpha_HW[0, 0]).any() else None

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Rotates an array (H, W, ...) of this image by its EXIF orientation."""
        if self.orientation >= 5:
            pixels = pixels.swapaxes(0, 1)
        if self.orientation in (3, 4, 7, 8):
            pixels = pixels[::-1]
        if self.orientation in (2, 3, 6, 7):
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(pixels)

    def deep_pixels(self) -> np.ndarray | None:
        """Returns colours of more than 8 bits, (H, W, C) uint16, not rotated yet; None if they cannot be read.

        Pillow has no such mode and keeps only the upper 8 bits.
        """
        if self.is_upright:  # OpenCV would not rotate it, or would refuse it
            return None
        pixels = cv2.imdecode(np.frombuffer(self.content, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
            return None
        return pixels[..., 2::-1]


def decode(path: Path | str, content: bytes | None = None) -> DecodedImage:
    """Decodes an image file.

    Args:
        path: path of the file; with ``content``, only its name in errors.
        content: bytes of a file inside another file; None reads the path.

    Raises:
        MaskcastError: if the file is missing, a Git LFS pointer, damaged, not an image, too large or has several
            pages.
    """
    if content is None:
        content = read_file(Path(path), "image", "copy it again from its origin")
    if content.startswith(LFS_HEAD):
        raise MaskcastError(f"{path}: {LFS_POINTER}")
    try:
        # From memory, because Pillow memory-maps some files, and maps rotated ones wrongly.
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        max_pixels = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise MaskcastError(f"{path}: has more than {max_pixels} pixels; shrink or crop it") from error
    except MemoryError:
        raise
    except Exception as error:  # readers of some fifty formats raise anything on damage
        raise MaskcastError(
            f"{path}: not a readable image ({_reason(error)}); copy it again from its origin, or save it as PNG"
        ) from error
    raw_mode = _raw_mode(image)
    try:
        if (pages := _pages(image)) > 1:
            raise MaskcastError(
                f"{path}: has {pages} pages or animation frames; save each as a separate file "
                "(ImageJ: File, Save As, Image Sequence)"
            )
        depth, orientation = _depth(image, raw_mode, content), _orientation(image)
        if image.format == "TIFF" and depth > 8 and image.tag_v2.get(PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
            raise MaskcastError(f"{path}: TIFF of {depth} bits with white as 0 is not supported; save it as PNG")
        image.load()
    except (MaskcastError, MemoryError):
        raise
    except Exception as error:
        raise MaskcastError(
            f"{path}: the image is damaged ({_reason(error)}); copy it again from its origin"
        ) from error
    lossy = image.format in {"JPEG", "MPO"} or image.info.get("compression") == "jpeg"
    lossy |= image.format == "WEBP" and not _is_lossless_webp(content)
    rotated_by_pillow = image.format == "TIFF" and orientation != 1
    return DecodedImage(image, 1 if rotated_by_pillow else orientation, depth, lossy, content, rotated_by_pillow)


def upright_size(path: Path) -> tuple[int, int]:
    """Returns height and width of an image after EXIF rotation, read from its header only.

    Raises:
        MaskcastError: if it cannot be read.
    """
    remedy = "copy it again from its origin, or save it as PNG"
    with open_file(path, "image", remedy) as file, parsing(path, "a readable image", remedy):
        image = Image.open(file)
        # A PNG without EXIF in its header would be decoded to look for it; Pillow rotates a TIFF when it is
        # opened.
        has_exif = image.format in {"JPEG", "MPO", "WEBP"} or (image.format == "PNG" and "exif" in image.info)
        is_rotated = has_exif and _orientation(image) >= 5
        return image.size if is_rotated else image.size[::-1]


def _is_lossless_webp(content: bytes) -> bool:
    """Whether a WebP file has a chunk `VP8L` (developers.google.com/speed/webp/docs/riff_container)."""
    start = 12  # behind `RIFF`, a size and `WEBP`
    while start + 8 <= len(content):
        if content[start : start + 4] == b"VP8L":
            return True
        size = int.from_bytes(content[start + 4 : start + 8], "little")
        start += 8 + size + size % 2
    return False


def _raw_mode(image: Image.Image) -> str:
    """Returns Pillow's name for the sample format in the file, e.g. `L;4`."""
    tile: Any = getattr(image, "tile", None)
    args = tile[0].args if tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _pages(image: Image.Image) -> int:
    """Returns the number of pictures in a file, without reduced copies of the first."""
    count = int(getattr(image, "n_frames", 1))
    if image.format == "MPO":  # a phone's photo: the other pictures are a depth map or a preview
        return 1
    if image.format == "TIFF" and count > 1:
        reduced = 0
        for page in range(1, count):
            image.seek(page)
            reduced += int(image.tag_v2.get(SUBFILE, 0)) & 1  # type: ignore[attr-defined]
        image.seek(0)
        count -= reduced
    return count


def _depth(image: Image.Image, raw_mode: str, content: bytes) -> int:
    """Returns the bits per sample: as PNG and TIFF declare them, else as Pillow's mode shows."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        max_sample = tags.get(MAX_SAMPLE, 0)
        max_sample = max(max_sample) if isinstance(max_sample, tuple) else max_sample
        return int(max_sample).bit_length() if max_sample > 255 else max(tags.get(BITS, (1,)))
    if image.format == "PNG":
        return content[24]
    low_depth = re.fullmatch(r"L;([24])I?", raw_mode)
    return int(low_depth[1]) if low_depth else 16 if "16" in image.mode else 8


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken metadata; the picture is complete
        return 1
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _reason(error: Exception) -> str:
    return "unknown format" if "cannot identify" in str(error) else reason_of(error)
