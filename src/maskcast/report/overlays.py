"""Pictures of masks: colours, overlays, error maps, and grids of them.

Frame numbers on pictures count from 1, as the names of scores do.

Legend: T frames, H height, W width, C = 3 channels (RGB); frames and pictures are uint8, masks uint8 class ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskcast.data.clip_index import evenly_spaced
from maskcast.labels import IGNORE, MapKind

CANVAS = (28, 33, 40)  # background class, where no frame lies under the mask
PAPER = (15, 18, 22)
INK, FAINT = (233, 237, 242), (139, 148, 160)
MISSED, FALSE_ALARM, WRONG_CLASS, RIGHT = (239, 83, 80), (66, 165, 245), (255, 202, 40), (96, 108, 122)
CELL_WIDTHS = (120, 176)  # pixels: smaller cells are enlarged, larger ones shrunk
MAX_COLUMNS = 11


@dataclass(frozen=True)
class Row:
    """One row of a grid: a label, and per column a caption above and a picture (H, W, C), or None for a gap."""

    label: str
    cells: Sequence[np.ndarray | None]
    captions: Sequence[str] = ()


@cache
def palette() -> np.ndarray:
    """Returns (256, 3) uint8: the colour of every class id; neighbouring ids lie far apart in hue."""
    ids = np.arange(256)
    hue = 2 * np.pi * ((0.07 + 0.71828 * ids) % 1)  # keeps ids apart that differ by 1 to 6 or a multiple of 8
    lightness = np.array([0.74, 0.62, 0.84])[ids % 3]
    chroma = np.array([0.17, 0.19, 0.13])[ids % 3]
    colours = _oklab_to_rgb(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    colours[0], colours[IGNORE] = CANVAS, (70, 74, 80)
    return colours


def overlay(frame_HWC: np.ndarray | None, mask_HW: np.ndarray | None, opacity: float = 0.6) -> np.ndarray:
    """Paints a mask over its frame, each region with a bright rim.

    Args:
        frame_HWC: None paints the mask on a plain canvas.
        mask_HW: None leaves the frame as it is.
        opacity: Of the mask's colours over the frame; background stays clear.

    Returns:
        (H, W, C) uint8.
    """
    if mask_HW is None:
        assert frame_HWC is not None
        return np.array(frame_HWC)
    colour_HWC = palette()[mask_HW].astype(np.float32)
    object_HW1 = ((mask_HW != 0) & (mask_HW != IGNORE))[..., None]
    picture_HWC = colour_HWC
    if frame_HWC is not None:
        picture_HWC = np.where(object_HW1, opacity * colour_HWC + (1 - opacity) * frame_HWC, frame_HWC)
    rim_HW1 = rim(mask_HW)[..., None] & object_HW1
    picture_HWC = np.where(rim_HW1, 0.45 * colour_HWC + 0.55 * 255, picture_HWC)
    return np.round(picture_HWC).astype(np.uint8)


def error_map(truth_HW: np.ndarray, prediction_HW: np.ndarray) -> np.ndarray:
    """Colours what a prediction got wrong: missed, false alarm, wrong class; right objects grey; (H, W, C)."""
    valid, wrong = truth_HW != IGNORE, truth_HW != prediction_HW
    picture = np.empty((*truth_HW.shape, 3), np.uint8)
    picture[...] = CANVAS
    picture[valid & ~wrong & (truth_HW > 0)] = RIGHT
    picture[valid & wrong & (prediction_HW == 0)] = MISSED
    picture[valid & wrong & (truth_HW == 0)] = FALSE_ALARM
    picture[valid & wrong & (truth_HW > 0) & (prediction_HW > 0)] = WRONG_CLASS
    return picture


def matte(frame_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """Lays what an opacity (uint8, 255 = 1) keeps of a frame on a plain canvas; (H, W, C) uint8."""
    opacity_HW1 = alpha_HW[..., None].astype(np.float32) / 255
    picture_HWC: np.ndarray = opacity_HW1 * frame_HWC + (1 - opacity_HW1) * np.array(CANVAS, np.float32)
    return np.round(picture_HWC).astype(np.uint8)


def matte_error(truth_HW: np.ndarray, prediction_HW: np.ndarray) -> np.ndarray:
    """Shows how far an opacity is off, from black to white; (H, W, C) uint8."""
    off_HW = np.abs(truth_HW.astype(np.int16) - prediction_HW).astype(np.uint8)
    return np.repeat(off_HW[..., None], 3, 2)


def masker_strip(
    frames: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    title: str = "masker",
    kind: MapKind = "classes",
) -> Image.Image:
    """Draws frames (T, H, W, C), the masker's masks (T, H, W) of a map and, where known, truth and errors."""
    painted, error = (matte, matte_error) if kind == "alpha" else (overlay, error_map)
    shown = evenly_spaced(len(frames), MAX_COLUMNS)
    rows = [Row("frame", [frames[t] for t in shown], [f"frame {t + 1}" for t in shown])]
    if truth is not None:
        rows.append(Row("truth", [painted(frames[t], truth[t]) for t in shown]))
    rows.append(Row("masker", [painted(frames[t], prediction[t]) for t in shown]))
    if truth is not None:
        label = "difference" if kind == "alpha" else "error"  # colours of errors are explained below
        rows.append(Row(label, [error(truth[t], prediction[t]) for t in shown]))
    return grid(rows, title)


def grid(rows: Sequence[Row], title: str, widths: tuple[int, int] = CELL_WIDTHS) -> Image.Image:
    """Draws rows of pictures with labels on the left, captions above, and the error colours explained below.

    Args:
        rows: All pictures of the size of the first one.
        title: Heading; where it is too long, its middle is left out.
        widths: Least and greatest width of a picture on the sheet, pixels.
    """
    height, width = next(cell.shape[:2] for row in rows for cell in row.cells if cell is not None)
    cell_width = min(max(width, widths[0]), widths[1])
    cell_height = round(height * cell_width / width)
    gap, margin = 4, 16
    gutter = margin + max(round(font(13).getlength(row.label)) + 12 if row.label else 0 for row in rows)
    columns = max(len(row.cells) for row in rows)
    tops, y = [], margin + 32
    for row in rows:
        y += 20 if row.captions else 0
        tops.append(y)
        y += cell_height + gap
    legend = any(row.label == "error" for row in rows)
    size = (gutter + columns * (cell_width + gap) - gap + margin, y - gap + margin + (28 if legend else 0))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, margin - 2), elided(title, size[0] - 2 * margin, 17), INK, font(17))
    for row, top in zip(rows, tops, strict=True):
        draw.text((gutter - 12, top + cell_height // 2), row.label, INK, font(13), anchor="rm")
        for column, cell in enumerate(row.cells):
            left = gutter + column * (cell_width + gap)
            if column < len(row.captions):
                draw.text((left + 1, top - 4), row.captions[column], FAINT, font(11), anchor="ls")
            if cell is not None:
                sheet.paste(resized(cell, cell_width, cell_height), (left, top))
    if legend:
        _draw_legend(draw, gutter, size[1] - margin - 6)
    return sheet


def stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    """Returns pictures one below the other."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def resized(picture_HWC: np.ndarray, width: int, height: int) -> Image.Image:
    """Returns a picture (H, W, C) in another size: enlarged to hard edges, shrunk to smooth ones."""
    image = Image.fromarray(np.ascontiguousarray(picture_HWC))
    if image.size == (width, height):
        return image
    enlarge = width > image.size[0]
    return image.resize((width, height), Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS)


def rim(mask_HW: np.ndarray) -> np.ndarray:
    """Returns where a pixel's right, left, upper or lower neighbour has another class."""
    rim_HW = np.zeros(mask_HW.shape, bool)
    down, across = mask_HW[1:] != mask_HW[:-1], mask_HW[:, 1:] != mask_HW[:, :-1]
    rim_HW[1:] |= down
    rim_HW[:-1] |= down
    rim_HW[:, 1:] |= across
    rim_HW[:, :-1] |= across
    return rim_HW


def _oklab_to_rgb(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Converts Oklab, in which equal steps look equal, to sRGB (N, 3) uint8 (matrices: Ottosson 2020)."""
    cones = np.stack(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = (to_linear @ cones**3).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded.T).astype(np.uint8)


def elided(text: str, width: float, size: int) -> str:
    """Returns a text without its middle, where it is longer than so many pixels in the font of this size."""
    shown, kept = text, len(text)
    while kept and font(size).getlength(shown) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def _draw_legend(draw: ImageDraw.ImageDraw, left: float, middle: float) -> None:
    for name, colour in (
        ("right", RIGHT),
        ("missed", MISSED),
        ("false alarm", FALSE_ALARM),
        ("wrong class", WRONG_CLASS),
    ):
        draw.rounded_rectangle((left, middle - 5, left + 10, middle + 5), 2, fill=colour)
        draw.text((left + 16, middle), name, FAINT, font(12), anchor="lm")
        left += 16 + font(12).getlength(name) + 18


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns the font of all pictures at this size in pixels."""
    return ImageFont.load_default(size)  # ships with Pillow: the same picture on every machine
