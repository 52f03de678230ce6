"""Decodes image files of users: upright, of one page, whole, with their true depth.

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
from maskcast.reading import LFS_HEAD, LFS_POINTER, content_of, opened, parsing, reason_of

ORIENTATION, SUBFILE, BITS, PHOTOMETRIC, MAX_SAMPLE = 0x0112, 254, 258, 262, 281  # tags of EXIF and TIFF
# Pillow warns of many pixels, without the file's name; twice as many are an error, which gets it here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Notes of a camera or a program that are broken: the picture is whole, or its own error says that it is not.
warnings.filterwarnings("ignore", "Corrupt EXIF data|Truncated File Read|Metadata Warning", UserWarning)


@dataclass(frozen=True)
class Decoded:
    """An image file, decoded but as it is stored, apart from its orientation.

    Attributes:
        image: of the mode that the file has; its pixels are not turned yet.
        orientation: of EXIF, 1 to 8: what `upright` undoes.
        depth: bits of a sample, as the file declares them.
        lossy: whether its compression changes values.
        content: the file.
        turned: whether the pixels have been turned already, as Pillow does with TIFF.
    """

    image: Image.Image
    orientation: int
    depth: int
    lossy: bool
    content: bytes
    turned: bool

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """Turns an array (H, W, ...) of this image as its owner sees it."""
        return turned(pixels, self.orientation)

    def deep_pixels(self) -> np.ndarray | None:
        """Returns colours of more than 8 bits, (H, W, C) uint16, not turned yet; None where they cannot be read.

        Pillow has no such mode: it keeps the upper 8 bits.
        """
        if self.turned:  # OpenCV would not, or would refuse
            return None
        pixels = cv2.imdecode(np.frombuffer(self.content, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 3:
            return None
        return pixels[..., 2::-1]


def decode(path: Path | str, content: bytes | None = None) -> Decoded:
    """Decodes an image file.

    Args:
        path: of the file, or, where ``content`` is given, how errors name it.
        content: of a file that lies in another one; None reads the path.

    Raises:
        MaskcastError: when the file is missing, a pointer of Git LFS, damaged, no image, too large or has several
            pages.
    """
    if content is None:
        content = content_of(Path(path), "image", "copy it again from its origin")
    if content.startswith(LFS_HEAD):
        raise MaskcastError(f"{path}: {LFS_POINTER}")
    try:
        # From memory: Pillow maps some files at a path, and maps turned ones wrongly.
        image = Image.open(io.BytesIO(content))
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise MaskcastError(f"{path}: has more than {most} pixels; shrink it or cut it into parts") from error
    except MemoryError:
        raise
    except Exception as error:  # what Pillow's readers of some fifty formats raise on damage is in no list
        raise MaskcastError(
            f"{path}: not a readable image ({_line(error)}); copy it again from its origin, or save it as PNG"
        ) from error
    raw_mode = _raw_mode(image)
    try:
        if (pages := _pages(image)) > 1:
            raise MaskcastError(
                f"{path}: holds {pages} pages or pictures of an animation; save each as a file of its own "
                "(ImageJ: File, Save As, Image Sequence)"
            )
        depth, orientation = _depth(image, raw_mode, content), _orientation(image)
        if image.format == "TIFF" and depth > 8 and image.tag_v2.get(PHOTOMETRIC) == 0:  # type: ignore[attr-defined]
            raise MaskcastError(f"{path}: white is 0 in {depth} bits, which is not known here; save it as PNG")
        image.load()
    except (MaskcastError, MemoryError):
        raise
    except Exception as error:
        raise MaskcastError(
            f"{path}: the image is damaged ({_line(error)}); copy it again from its origin"
        ) from error
    lossy = image.format in {"JPEG", "MPO"} or image.info.get("compression") == "jpeg"
    lossy |= image.format == "WEBP" and b"VP8L" not in content[:64]
    turns = image.format == "TIFF" and orientation != 1
    return Decoded(image, 1 if turns else orientation, depth, lossy, content, turns)


def upright_size(path: Path) -> tuple[int, int]:
    """Returns height and width of an image as its owner sees it, by the head of the file alone.

    Raises:
        MaskcastError: when it cannot be read.
    """
    remedy = "copy it again from its origin, or save it as PNG"
    with opened(path, "image", remedy) as file, parsing(path, "a readable image", remedy):
        image = Image.open(file)
        # A PNG without notes in its head would be decoded to look for them; a TIFF is turned as it is opened.
        noted = image.format in {"JPEG", "MPO", "WEBP"} or (image.format == "PNG" and "exif" in image.info)
        lies = noted and _orientation(image) >= 5
        return image.size if lies else image.size[::-1]


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array (H, W, ...) as an EXIF orientation says; 1 leaves it as it is."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _raw_mode(image: Image.Image) -> str:
    """Returns what Pillow calls the form of the samples in the file, e.g. `L;4`."""
    tile: Any = getattr(image, "tile", None)
    args = tile[0].args if tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _pages(image: Image.Image) -> int:
    """Returns how many pictures a file has, without smaller copies of the first."""
    count = int(getattr(image, "n_frames", 1))
    if image.format == "MPO":  # a photo of a phone: what follows are its depth or its preview
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
    """Returns the bits of a sample: as PNG and TIFF declare them, else what they take."""
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        most = tags.get(MAX_SAMPLE, 0)
        most = max(most) if isinstance(most, tuple) else most
        return int(most).bit_length() if most > 255 else max(tags.get(BITS, (1,)))
    if image.format == "PNG":
        return content[24]
    small = re.fullmatch(r"L;([24])I?", raw_mode)
    return int(small[1]) if small else 16 if "16" in image.mode else 8


def _orientation(image: Image.Image) -> int:
    try:
        found = image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken notes of the camera: the picture is whole
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _line(error: Exception) -> str:
    return "no format that is known" if "cannot identify" in str(error) else reason_of(error)
