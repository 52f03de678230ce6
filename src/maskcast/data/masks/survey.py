"""Surveys the masks of a whole set before use: which values they contain, and in what form.

`choice` and `rules` decide from it which class each value means.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.masks.panoptic import PanopticEncoding
from maskcast.data.masks.stored import WHITE_16, MaskImage, ReadMode, read_mask
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.reading import first_few, pluralize

MAX_READ = 200  # maximum number of masks that are read, if these show foreground
MAX_LABEL_VALUES = 8  # up to this many values are labels, more may be a soft edge
MAX_SHOWN = 6  # maximum number of values in a message
BLACK, WHITE = 0x000000, 0xFFFFFF
MIN_GREY_STEP = 8  # between 8-bit greys of a mask made for people
MAX_FLAT_SHARE = 0.1  # of soft edges, the maximum share of flat, similar greys, relative to white and to all greys
MIN_AREA_SHARE = 0.2  # of a class's pixels, the minimum share that touches no other value
JPEG_TOLERANCE = 32  # how far JPEG may change black and white


@dataclass
class MaskSurvey:
    """Statistics of some masks of a set.

    Attributes:
        num_masks: number of masks in the set.
        num_read: number of masks that were read.
        read_mode: how they were read; with `colours`, values are 0xRRGGBB.
        panoptic: how class and object were separated; values are then classes. None if values are as stored.
        formats: number of files by form, e.g. `palette`.
        pixels: number of pixels by value.
        edge_pixels: number of those that touch another colour, or a grey that is seen to differ.
        area_pixels: number of those whose neighbours all have the same value.
        files: number of files by value.
        first_file: first file with each value.
        counts_by_file: number of pixels by value, of each file.
        indexed: whether all files have a form that allows only small numbers (palette or bits).
        lossy: a file whose compression changes values, or None.
        palette: by index of palettes, the colour and the first file that has it.
        read_error: error of the first unreadable file; empty if all were readable.
        palette_conflict: a palette index with another colour, that colour, and its file; None without conflict.
    """

    num_masks: int = 0
    num_read: int = 0
    read_mode: ReadMode = "stored"
    panoptic: PanopticEncoding | None = None
    formats: Counter[str] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    edge_pixels: Counter[int] = field(default_factory=Counter)
    area_pixels: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    first_file: dict[int, Path] = field(default_factory=dict)
    counts_by_file: dict[Path, Mapping[int, int]] = field(default_factory=dict)
    indexed: bool = True
    lossy: Path | None = None
    palette: dict[int, tuple[int, Path]] = field(default_factory=dict)
    palette_conflict: tuple[int, int, Path] | None = None
    read_error: str = ""

    def add(self, path: Path, mask: MaskImage) -> None:
        """Adds a mask to the statistics."""
        self.num_read += 1
        self.formats[mask.format] += 1
        self.indexed &= mask.indexed
        if mask.lossy:
            self.lossy = self.lossy or path
        counts = mask.counts()
        self.counts_by_file[path] = counts
        contrast_HW = _contrast(mask)
        touching_HW = contrast_HW > (0 if mask.colours else MIN_GREY_STEP)
        self.edge_pixels.update(replace(mask, values_HW=mask.values_HW[touching_HW]).counts())
        self.area_pixels.update(replace(mask, values_HW=mask.values_HW[contrast_HW == 0]).counts())
        for value, pixels in counts.items():
            self.pixels[value] += pixels
            self.files[value] += 1
            self.first_file.setdefault(value, path)
        for index, colour in mask.palette.items():
            if self.palette.setdefault(index, (colour, path))[0] != colour and self.palette_conflict is None:
                self.palette_conflict = index, colour, path

    @property
    def colours(self) -> bool:
        """Whether values are colours, 0xRRGGBB."""
        return self.read_mode == "colours" and self.panoptic is None

    @property
    def has_inverted_palette(self) -> bool:
        """Whether palettes are only black and white, and index 0 is white in some: then use the brightness."""
        seen = {colour for colour, _ in self.palette.values()} | (
            {self.palette_conflict[1]} if self.palette_conflict else set()
        )
        zero = self.palette.get(0, (BLACK,))[0]
        alone = self.formats.keys() == {"palette"} and seen <= {BLACK, WHITE}
        return alone and (self.palette_conflict is not None or zero == WHITE)

    @property
    def values(self) -> list[int]:
        """All values, ascending."""
        return sorted(self.pixels)

    @property
    def has_object_ids(self) -> bool:
        """Whether the greatest value is above 255 and below 16-bit white: object numbers, not brightness."""
        values = {*self.pixels} - ({WHITE_16} if self.void == WHITE_16 else set())
        return not self.colours and IGNORE < max(values, default=0) < WHITE_16

    @property
    def void(self) -> int:
        """The value that means no label if masks hold it beside numbers: 65535 among numbers of 16 bits, else 255.

        White of 16 bits among few greys, or with soft edges, is foreground.
        """
        others = [value for value in self.values if value != WHITE_16]
        if self.colours or WHITE_16 not in self.pixels or not are_numbers(others, WHITE_16):
            return IGNORE
        black, white = self.share([0]), self.share([WHITE_16])
        has_soft_edges = (
            len(others) > MAX_LABEL_VALUES
            and others[-1] > WHITE_16 // 2
            and black + white > 0.9
            and white >= (1 - black) / 4
        )
        return IGNORE if has_soft_edges else WHITE_16

    def share(self, values: Iterable[int]) -> float:
        """Returns the fraction of all pixels that have one of these values."""
        return sum(self.pixels[value] for value in values) / max(1, self.pixels.total())

    @property
    def is_soft(self) -> bool:
        """Whether nine of ten pixels are black or white; others are soft edges, noise of JPEG, or a grey class.

        White must be at least a quarter of what is not black; for numbers of many objects it is less.
        Files without loss must show edges: ids of classes beside 255 are below half of it, or fill areas.
        """
        if self.colours or self.panoptic or max(self.pixels, default=0) not in range(255 - JPEG_TOLERANCE, 256):
            return False
        if self.lossy is None and not self._has_edge_values:
            return False
        black = self.share(range(JPEG_TOLERANCE + 1))
        white = self.share(range(255 - JPEG_TOLERANCE, 256))
        return black + white > 0.9 and white >= (1 - black) / 4

    @property
    def _has_edge_values(self) -> bool:
        """Whether values are many, some of them between 128 and white, and most of them fill no areas."""
        between = [value for value in self.values if 0 < value < 255]
        areas = [value for value in between if self.area_pixels[value] > MIN_AREA_SHARE * self.pixels[value]]
        is_many = len({*self.values} - {0}) > MAX_LABEL_VALUES
        return is_many and between[-1] >= 128 and len(areas) <= len(between) / 2

    @property
    def has_grey_class(self) -> bool:
        """Whether areas of a grey lie between black and white, or areas of several greys near black.

        At soft edges each pixel touches other greys, and JPEG makes all black the same grey.
        """
        between = range(JPEG_TOLERANCE + 1, 255 - JPEG_TOLERANCE)
        flat = self.pixels - self.edge_pixels
        width = 2 * MIN_GREY_STEP  # of noise
        most = max(sum(flat[near] for near in range(v, v + width)) for v in between[:-width])
        white = sum(self.pixels[v] for v in range(between.stop, 256))
        dark = [self.area_pixels[v] for v in range(between.start)]
        return most > MAX_FLAT_SHARE * max(sum(self.pixels[v] for v in between), white) or (
            sum(dark) - max(dark) > MAX_FLAT_SHARE * white
        )

    def format_values(self, values: Sequence[int]) -> str:
        """Returns values as text, e.g. `0, 255`."""
        return format_values(values, colours=self.colours)

    def __str__(self) -> str:
        """The set as text, e.g. `40 masks (palette), values 0, 1, 2`."""
        forms = ", ".join(self.formats) or "none read"
        seen = "" if self.num_read == self.num_masks else f", {self.num_read} looked at"
        return f"{pluralize(self.num_masks, 'mask')} ({forms}{seen}), values {self.format_values(self.values)}"


def _contrast(mask: MaskImage) -> np.ndarray:
    """Returns how far values differ among each pixel and its eight neighbours, (H, W) float32."""
    values_HW = mask.values_HW.astype(np.float32)  # exact for 24 bits
    kernel = np.ones((3, 3), np.uint8)
    return cv2.dilate(values_HW, kernel) - cv2.erode(values_HW, kernel)


def are_numbers(values: Sequence[int], white: int) -> bool:
    """Whether two values are so close that they are class ids; greys that people tell apart are not.

    Args:
        values: in ascending order.
        white: the greatest value of their bit depth.
    """
    return any(after - before < MIN_GREY_STEP * white // IGNORE for before, after in pairwise(values))


def survey_masks(
    paths: Sequence[Path],
    ignore: int | None = None,
    read_mode: ReadMode | None = None,
    panoptic: PanopticEncoding | None = None,
) -> MaskSurvey:
    """Surveys masks evenly spread over a set; all masks, if those show only background.

    Unreadable masks are skipped; loading reports them.

    Args:
        paths: all masks of the set.
        ignore: pixel value that means no label.
        read_mode: see `read_mask`. None: `stored`, but `brightness` for black-and-white palettes with white first,
            and `colours` for all masks if some have colours that are not grey.
        panoptic: separates class and object; None counts values as stored.
    """
    survey = _survey(paths, ignore, read_mode or "stored", panoptic)
    return _survey(paths, ignore, "brightness") if read_mode is None and survey.has_inverted_palette else survey


def _survey(
    paths: Sequence[Path], ignore: int | None, read_mode: ReadMode, panoptic: PanopticEncoding | None = None
) -> MaskSurvey:
    chosen = evenly_spaced(len(paths), MAX_READ)
    rest = sorted(set(range(len(paths))) - set(chosen))
    survey = MaskSurvey(len(paths), read_mode=read_mode, panoptic=panoptic)
    for position, number in enumerate((*chosen, *rest)):
        if position >= len(chosen) and set(survey.pixels) - {0, ignore}:
            break
        try:
            mask = read_mask(paths[number], read_mode)
        except MaskcastError as error:
            survey.read_error = survey.read_error or str(error)
            continue
        if read_mode != "colours":
            grey_HW = mask.grey()
            if grey_HW is None:
                return _survey(paths, ignore, "colours", panoptic)
            mask = replace(mask, values_HW=grey_HW, colours=False)
        if panoptic is not None:
            mask = replace(mask, values_HW=panoptic(paths[number], mask)[0], colours=False)
        survey.add(paths[number], mask)
    return survey


def format_values(values: Sequence[int], *, colours: bool = False) -> str:
    """Returns the first few values as text."""
    texts = [f"#{value:06x}" if colours else str(value) for value in values]
    return first_few(texts, MAX_SHOWN, f", ... ({len(texts)} values)")
