"""Reads mask images as they are stored, without interpreting their values.

Shapes: H rows, W columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from maskcast.data.decoding import DecodedImage, decode
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE

ReadMode = Literal["stored", "colours", "brightness"]
EXPORT_REMEDY = "export the labels as a palette or grey image"
WHITE_16 = 0xFFFF  # greatest value of 16 bits
BDD_BITMASK = "RGBA of BDD100K"  # red: class; green: flags; blue and alpha: object number
# Of BDD100K; pixels flagged `crowd` or `ignore` have no label.
MAX_BDD_CLASSES, NUM_BDD_FLAGS, VOID_FLAGS = 41, 16, 0b11


@dataclass(frozen=True)
class MaskImage:
    """The pixel values of a mask image.

    Attributes:
        values_HW: int32: palette index, grey value, or colour 0xRRGGBB.
        format: in words, e.g. `4-bit grey`.
        colours: whether the values are colours.
        indexed: whether the form allows only small numbers: palette indices or single bits.
        lossy: whether the compression changes values.
        palette: colour by index, for the indices that occur.
    """

    values_HW: np.ndarray
    format: str
    colours: bool = False
    indexed: bool = False
    lossy: bool = False
    palette: Mapping[int, int] = field(default_factory=dict)

    def grey(self) -> np.ndarray | None:
        """Returns grey values (H, W); for colours only if all are grey, else None."""
        if not self.colours:
            return self.values_HW
        red_HW = self.values_HW >> 16
        return red_HW if (red_HW * 0x010101 == self.values_HW).all() else None

    def counts(self) -> dict[int, int]:
        """Returns the number of pixels of each value."""
        if self.colours or self.values_HW.max(initial=0) > WHITE_16:
            values, counts = np.unique(self.values_HW, return_counts=True)
            return dict(zip(values.tolist(), counts.tolist(), strict=True))
        counts = np.bincount(self.values_HW.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}


def read_mask(path: Path, read_mode: ReadMode = "stored") -> MaskImage:
    """Reads a mask image; its EXIF orientation is applied, as for frames.

    Args:
        path: one-bit, palette, grey (2 to 16 bits) or colour image, or floats that are whole numbers. An alpha
            channel that varies over a single colour is the mask; an alpha channel that adds nothing is dropped.
        read_mode: `stored`: palette indices, grey values, or else colours; `colours`: colours in any form;
            `brightness`: colours that must be grey.

    Raises:
        MaskcastError: if the file cannot be read or its form cannot hold labels.
    """
    decoded = decode(path)
    if read_mode == "colours":
        return _read_colours(path, decoded)
    if read_mode == "brightness":
        mask = _read_colours(path, decoded)
        if (grey_HW := mask.grey()) is None:
            raise MaskcastError(
                f"{path}: contains colours, but other masks are black and white; export all masks in one format"
            )
        return replace(mask, values_HW=grey_HW, format="black and white", colours=False)
    image = decoded.image
    mode, depth = image.mode, decoded.depth
    if mode in ("RGB", "RGBA", "LA", "PA"):
        return _read_colours(path, decoded)
    if mode == "F":
        return MaskImage(_to_integers(path, decoded.upright(np.asarray(image))), "float")
    values = decoded.upright(np.asarray(image)).astype(np.int32)
    if mode == "1":
        return MaskImage(values, "1-bit", indexed=True)
    if mode == "P":
        entries = image.getpalette("RGB") or []
        used = {k: int.from_bytes(bytes(entries[3 * k : 3 * k + 3])) for k in np.unique(values).tolist()}
        return MaskImage(values, "palette", indexed=True, palette=used)
    if mode == "L" and depth in (1, 2, 4):  # Pillow scales them to 0..255
        return MaskImage(values // (255 // (2**depth - 1)), f"{depth}-bit grey", indexed=depth == 1)
    if mode == "L" or mode.startswith("I"):
        if values.min(initial=0) < 0:
            raise MaskcastError(f"{path}: contains the value {values.min()}; {EXPORT_REMEDY} with values from 0")
        kind = f"{depth}-bit grey" if mode != "L" else f"JPEG, {depth}-bit grey" if decoded.lossy else "8-bit grey"
        return MaskImage(values, kind, lossy=decoded.lossy)
    raise MaskcastError(f"{path}: masks of mode {mode} are not supported; {EXPORT_REMEDY}")


def _read_colours(path: Path, decoded: DecodedImage) -> MaskImage:
    if decoded.depth > 8:
        raise MaskcastError(f"{path}: masks with {decoded.depth}-bit colours are not supported; {EXPORT_REMEDY}")
    pixels = decoded.upright(np.asarray(decoded.image.convert("RGBA"))).astype(np.int32)
    colours_HW = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    alpha_HW = pixels[..., 3]
    if (alpha_HW != alpha_HW.flat[0]).any():
        if (colours_HW == colours_HW.flat[0]).all():
            return MaskImage(alpha_HW, "alpha", lossy=decoded.lossy)
        clear = alpha_HW == 0
        if not (clear | (alpha_HW == 255)).all() or np.isin(colours_HW[clear], colours_HW[~clear]).any():
            if (values_HW := _decode_bitmask(pixels)) is not None:
                return MaskImage(values_HW, BDD_BITMASK, colours=True)
            raise MaskcastError(
                f"{path}: has labels both in its colours and in its alpha channel; {EXPORT_REMEDY}, without alpha"
            )
    form = "JPEG, RGB" if decoded.lossy else "RGB"
    return MaskImage(colours_HW, form, colours=True, lossy=decoded.lossy)


def _decode_bitmask(pixels_HWC: np.ndarray) -> np.ndarray | None:
    """Returns colours in which red is the class (255 for no label), and green and blue are the object number.

    None if the image is not in BDD100K's form, in which exactly the pixels of a class have an object number.
    """
    red_HW, green_HW, blue_HW, alpha_HW = np.moveaxis(pixels_HWC, -1, 0)
    numbers_HW = blue_HW << 8 | alpha_HW
    known = red_HW.max() < MAX_BDD_CLASSES and green_HW.max() < NUM_BDD_FLAGS
    if not known or ((red_HW > 0) != (numbers_HW > 0)).any():
        return None
    return np.where(green_HW & VOID_FLAGS, IGNORE, red_HW) << 16 | numbers_HW


def _to_integers(path: Path, values_HW: np.ndarray) -> np.ndarray:
    """Returns floats that are whole numbers as int32, and refuses others."""
    if not np.isfinite(values_HW).all() or (values_HW != np.rint(values_HW)).any() or values_HW.min() < 0:
        broken = values_HW[~np.isfinite(values_HW) | (values_HW != np.rint(values_HW)) | (values_HW < 0)]
        raise MaskcastError(f"{path}: contains the float {broken.flat[0]:g}; {EXPORT_REMEDY} of class ids")
    if values_HW.max() >= 1 << 31:
        raise MaskcastError(f"{path}: contains the value {values_HW.max():g}; {EXPORT_REMEDY} of class ids")
    return values_HW.astype(np.int32)
