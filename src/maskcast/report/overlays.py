"""Pictures of masks: overlays, error maps, and grids of these.

Frame numbers on pictures count from 1, as in the names of scores.

Legend: T frames, H height, W width, P pixels, C = 3 channels (RGB), K = 256 class ids; frames and pictures are
uint8, masks uint8 class ids.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.masks.colours import CANVAS, palette
from maskcast.labels import IGNORE, MapKind
from maskcast.report.paint import (
    ERRORS,
    FAINT,
    FALSE_ALARM,
    INK,
    MISSED,
    PAPER,
    RIGHT,
    WRONG_CLASS,
    Entry,
    elided,
    font,
    single_line,
    with_legend,
)

CELL_WIDTHS = (120, 176)  # pixels: smaller cells are enlarged, larger ones shrunk
MAX_CELL_HEIGHT = 4000  # maximum rows of a cell, because a film cannot have more than 16384 rows
MAX_COLUMNS = 11


@dataclass(frozen=True)
class Row:
    """One row of a grid: a label, and for each column a caption and a picture (H, W, C), or None for a gap."""

    label: str
    cells: Sequence[np.ndarray | None]
    captions: Sequence[str] = ()


def overlay(frame_HWC: np.ndarray | None, mask_HW: np.ndarray | None, opacity: float = 0.6) -> np.ndarray:
    """Draws a mask over its frame, each region with a bright outline.

    Under the mask the frame is grey, so that regions have exactly the hue of the class in the legend.

    Args:
        frame_HWC: the frame; None draws the mask on a plain canvas.
        mask_HW: the mask; None returns the frame unchanged.
        opacity: Opacity of the mask's colours; background stays transparent.

    Returns:
        (H, W, C) uint8.
    """
    if mask_HW is None:
        assert frame_HWC is not None
        return np.array(frame_HWC)
    picture_HWC: np.ndarray = palette()[mask_HW] if frame_HWC is None else np.array(frame_HWC, order="C")
    # Only pixels of objects are computed; taking them by index is several times faster than by a boolean mask.
    picture_PC, class_P = picture_HWC.reshape(-1, 3), mask_HW.ravel()
    object_HW = (mask_HW != 0) & (mask_HW != IGNORE)
    colour_KC = palette().astype(np.float32)
    if frame_HWC is not None:
        objects = np.flatnonzero(object_HW)
        red, green, blue = picture_PC.take(objects, axis=0).T
        grey_P = (red.astype(np.uint16) + green + blue) / np.float32(3)
        mixed_PC = (opacity * colour_KC).take(class_P.take(objects), axis=0)
        mixed_PC += (1 - opacity) * grey_P[:, None]
        picture_PC[objects] = np.round(mixed_PC)
    rims = np.flatnonzero(outline(mask_HW) & object_HW)
    rim_KC = np.round(0.45 * colour_KC + 0.55 * 255).astype(np.uint8)
    picture_PC[rims] = rim_KC.take(class_P.take(rims), axis=0)
    return picture_HWC


def error_map(truth_HW: np.ndarray, prediction_HW: np.ndarray) -> np.ndarray:
    """Colours a prediction's errors: missed, false alarm, wrong class; correct objects are grey; (H, W, C)."""
    valid, wrong = truth_HW != IGNORE, truth_HW != prediction_HW
    picture = np.empty((*truth_HW.shape, 3), np.uint8)
    picture[...] = CANVAS
    picture[valid & ~wrong & (truth_HW > 0)] = RIGHT
    picture[valid & wrong & (prediction_HW == 0)] = MISSED
    picture[valid & wrong & (truth_HW == 0)] = FALSE_ALARM
    picture[valid & wrong & (truth_HW > 0) & (prediction_HW > 0)] = WRONG_CLASS
    return picture


def matte(frame_HWC: np.ndarray, alpha_HW: np.ndarray) -> np.ndarray:
    """Composes a frame with its opacity (uint8, 255 = opaque) over a plain canvas; (H, W, C) uint8."""
    opacity_HW1 = alpha_HW[..., None].astype(np.float32) / 255
    picture_HWC: np.ndarray = opacity_HW1 * frame_HWC + (1 - opacity_HW1) * np.array(CANVAS, np.float32)
    return np.round(picture_HWC).astype(np.uint8)


def matte_error(truth_HW: np.ndarray, prediction_HW: np.ndarray) -> np.ndarray:
    """Shows the absolute error of an opacity, from black to white; (H, W, C) uint8."""
    error_HW = np.abs(truth_HW.astype(np.int16) - prediction_HW).astype(np.uint8)
    return np.repeat(error_HW[..., None], 3, 2)


def masker_strip(
    frames: np.ndarray,
    truth: np.ndarray | None,
    prediction: np.ndarray,
    title: str = "masker",
    kind: MapKind = "classes",
    numbers: Sequence[int] | None = None,
) -> Image.Image:
    """Draws frames (T, H, W, C), the masker's masks (T, H, W) of a map and, if known, truth and errors.

    Args:
        frames: the frames.
        truth: the true masks; None if they are unknown.
        prediction: the masker's masks.
        title: heading.
        kind: of the map.
        numbers: of the frames in their clip, from 0; None if they are all of its frames.
    """
    numbers = range(len(frames)) if numbers is None else numbers
    draw, error = (matte, matte_error) if kind == "alpha" else (overlay, error_map)
    shown = evenly_spaced(len(frames), MAX_COLUMNS)
    rows = [Row("frame", [frames[t] for t in shown], [f"frame {numbers[t] + 1}" for t in shown])]
    if truth is not None:
        rows.append(Row("truth", [draw(frames[t], truth[t]) for t in shown]))
    rows.append(Row("masker", [draw(frames[t], prediction[t]) for t in shown]))
    if truth is not None:
        label = "difference" if kind == "alpha" else "error"  # the legend explains colours of errors
        rows.append(Row(label, [error(truth[t], prediction[t]) for t in shown]))
    return grid(rows, title)


def samples_picture(frames: np.ndarray, maps: Mapping[str, tuple[MapKind, np.ndarray]]) -> Image.Image:
    """Draws the samples of a batch, frames (N, H, W, C), and below them the masks (N, H, W) of each label map.

    Args:
        frames: frames after augmentation.
        maps: kind and masks, by name of the label map.
    """
    rows = [Row("sample", list(frames))]
    for name, (kind, masks) in maps.items():
        draw = matte if kind == "alpha" else overlay
        rows.append(Row(name, [draw(frame, mask) for frame, mask in zip(frames, masks, strict=True)]))
    return grid(rows, "samples of the first batch")


def png_bytes(picture: Image.Image) -> bytes:
    """Returns a picture as the content of a PNG file."""
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def grid(
    rows: Sequence[Row], title: str, widths: tuple[int, int] = CELL_WIDTHS, legend: Sequence[Entry] = ()
) -> Image.Image:
    """Draws rows of pictures with labels on the left, captions above, and a legend below.

    Args:
        rows: Pictures of equal size.
        title: Heading; if it is too long, its middle is left out.
        widths: Minimum and maximum width of a picture, in pixels; less if it would be too tall.
        legend: Names and colours of classes; colours of errors are added if a row shows errors.
    """
    height, width = next(cell.shape[:2] for row in rows for cell in row.cells if cell is not None)
    cell_width = min(max(width, widths[0]), widths[1], max(1, MAX_CELL_HEIGHT * width // height))
    cell_height = max(1, round(height * cell_width / width))
    gap, margin = 4, 16
    labels = [single_line(row.label) for row in rows]
    gutter = margin + max(round(font(13, label).getlength(label)) + 12 if label else 0 for label in labels)
    columns = max(len(row.cells) for row in rows)
    tops, y = [], margin + 32
    for row in rows:
        y += 20 if row.captions else 0
        tops.append(y)
        y += cell_height + gap
    size = (gutter + columns * (cell_width + gap) - gap + margin, y - gap + margin)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    heading = elided(title, size[0] - 2 * margin, 17)
    draw.text((margin, margin - 2), heading, INK, font(17, heading))
    for row, label, top in zip(rows, labels, tops, strict=True):
        draw.text((gutter - 12, top + cell_height // 2), label, INK, font(13, label), anchor="rm")
        for column, cell in enumerate(row.cells):
            left = gutter + column * (cell_width + gap)
            if column < len(row.captions):
                caption = single_line(row.captions[column])
                draw.text((left + 1, top - 4), caption, FAINT, font(11, caption), anchor="ls")
            if cell is not None:
                sheet.paste(resize_picture(cell, cell_width, cell_height), (left, top))
    errors = ERRORS if any(row.label == "error" for row in rows) else ()
    return with_legend(with_legend(sheet, legend), errors)


def stack_vertically(pictures: Sequence[Image.Image]) -> Image.Image:
    """Returns pictures stacked vertically."""
    sheet = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    return sheet


def resize_picture(picture_HWC: np.ndarray, width: int, height: int) -> Image.Image:
    """Returns a resized picture (H, W, C): enlarged with hard edges, shrunk smoothly."""
    image = Image.fromarray(np.ascontiguousarray(picture_HWC))
    if image.size == (width, height):
        return image
    enlarge = width > image.size[0]
    return image.resize((width, height), Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS)


def outline(mask_HW: np.ndarray) -> np.ndarray:
    """Returns the pixels with a horizontal or vertical neighbour of another class."""
    outline_HW = np.zeros(mask_HW.shape, bool)
    down, across = mask_HW[1:] != mask_HW[:-1], mask_HW[:, 1:] != mask_HW[:, :-1]
    outline_HW[1:] |= down
    outline_HW[:-1] |= down
    outline_HW[:, 1:] |= across
    outline_HW[:, :-1] |= across
    return outline_HW
