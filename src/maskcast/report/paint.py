"""Colours and fonts of all pictures, and their legends.

Legend: T frames, H height, W width; masks are uint8 class ids.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskcast.data.masks.colours import palette
from maskcast.labels import IGNORE

Colour = tuple[int, int, int]
Entry = tuple[str, Colour]  # of a legend: name and colour

PAPER = (15, 18, 22)
INK, FAINT = (233, 237, 242), (139, 148, 160)
MISSED, FALSE_ALARM, WRONG_CLASS, RIGHT = (239, 83, 80), (66, 165, 245), (255, 202, 40), (96, 108, 122)
ERRORS: tuple[Entry, ...] = (
    ("right", RIGHT),
    ("missed", MISSED),
    ("false alarm", FALSE_ALARM),
    ("wrong class", WRONG_CLASS),
)
LEGEND_SIZE, LINE, SWATCH, GAP = 12, 18, 10, 16  # pixels: font, line, swatch, gap after an entry
MISSING_GLYPH = "\uffff"
MARGIN = 16  # pixels on both sides of a legend
MAX_LINES = 6  # maximum number of lines of a legend below a picture
LEGEND_WIDTH = 960  # pixels: a legend that is a picture of its own


def font(size: int, text: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns the font for a text on pictures, at this size in pixels.

    Two fonts come with Python packages, so that pictures are equal on every machine. Pillow's font has ASCII and
    few other characters. Matplotlib's has the letters of most alphabets, but no Chinese, Japanese or Korean. For
    these, a font of the machine is used; without one, boxes are drawn.
    """
    return _font(size, None) if _can_draw(None, text) else _font(size, _font_file(text))


@cache
def _font(size: int, file: Path | None) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns a font; None is Pillow's."""
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)


@cache
def _font_file(text: str) -> Path:
    """Returns a font file that can draw the text, or else matplotlib's."""
    import matplotlib  # slow to import, and rarely needed
    from matplotlib.font_manager import findSystemFonts

    bundled = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    system_fonts = [Path(file) for file in sorted(findSystemFonts())]
    usable = [file for file in system_fonts if "LastResort" not in file.name]  # it only has boxes
    for file in (bundled, *usable):
        with suppress(OSError):  # formats or sizes that Pillow does not support
            if _can_draw(file, text):
                return file
    return bundled


def _can_draw(file: Path | None, text: str) -> bool:
    return all(_has_glyph(file, letter) for letter in text)


@cache
def _has_glyph(file: Path | None, letter: str) -> bool:
    """Whether a font draws a letter, rather than the box for missing letters."""
    glyph, missing = (bytes(_font(LEGEND_SIZE, file).getmask(each)) for each in (letter, MISSING_GLYPH))
    return glyph != missing


def single_line(text: str) -> str:
    """Returns a text with line breaks replaced by spaces; file names may contain line breaks."""
    return " ".join(text.splitlines())


def elided(text: str, width: float, size: int) -> str:
    """Returns a text in one line, without its middle if it is wider than ``width`` pixels at this font size."""
    text = single_line(text)
    shown, kept = text, len(text)
    while kept and font(size, text).getlength(shown) > width:
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
    return shown


def class_entries(masks: Iterable[np.ndarray], classes: Sequence[str]) -> list[Entry]:
    """Returns a legend of all classes in some masks, by id, without background.

    Args:
        masks: masks of any shape.
        classes: class names by id.
    """
    ids = sorted(set().union(*(np.unique(mask).tolist() for mask in masks)) - {0, IGNORE})
    return [(classes[k] if k < len(classes) else f"class {k}", tuple(palette()[k].tolist())) for k in ids]


def with_legend(picture: Image.Image, entries: Sequence[Entry]) -> Image.Image:
    """Returns a picture with a legend below it; unchanged without entries.

    Args:
        picture: picture with background colour `PAPER`.
        entries: names and colours; only a count is shown of those beyond `MAX_LINES` lines.
    """
    lines = _lines(entries, picture.width - 2 * MARGIN, MAX_LINES)
    return _draw_lines(picture, lines) if lines else picture


def legend_picture(entries: Sequence[Entry]) -> Image.Image:
    """Returns a picture of a whole legend."""
    empty = Image.new("RGB", (LEGEND_WIDTH, LINE // 2), PAPER)
    return _draw_lines(empty, _lines(entries, LEGEND_WIDTH - 2 * MARGIN, len(entries)))


def _draw_lines(picture: Image.Image, lines: Sequence[Sequence[Entry]]) -> Image.Image:
    """Returns a picture with the lines of a legend below it."""
    sheet = Image.new("RGB", (picture.width, picture.height + LINE * len(lines) + LINE // 2), PAPER)
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(lines):
        left, middle = float(MARGIN), picture.height + LINE * row + LINE // 2
        for name, colour in line:
            if colour != PAPER:
                draw.rounded_rectangle((left, middle - 5, left + SWATCH, middle + 5), 2, fill=colour)
            draw.text((left + SWATCH + 6, middle), name, INK, font(LEGEND_SIZE, name), anchor="lm")
            left += _width(name)
    return sheet


def _lines(entries: Sequence[Entry], width: float, most: int) -> list[list[Entry]]:
    """Breaks a legend into lines of at most ``width`` pixels; the last of ``most`` counts what does not fit."""
    lines: list[list[Entry]] = []
    remaining = 0.0
    for index, (name, colour) in enumerate(entries):
        shown = elided(name, width - SWATCH - 6, LEGEND_SIZE)
        if remaining < _width(shown) - GAP or not lines:
            if len(lines) == most:
                return [*lines[:-1], [*lines[-1][:-1], (f"and {len(entries) - index + 1} more", PAPER)]]
            lines.append([])
            remaining = width
        lines[-1].append((shown, colour))
        remaining -= _width(shown)
    return lines


def _width(name: str) -> float:
    """Returns the width of an entry, including the gap after it."""
    return SWATCH + 6 + font(LEGEND_SIZE, name).getlength(name) + GAP
