"""Surveys the masks of a whole set before use: which values they contain, and in what form.

`choice` and `rules` decide from it which class each value means.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from maskcast.data.clip_store.frame_index import evenly_spaced
from maskcast.data.masks.panoptic import Split
from maskcast.data.masks.stored import MaskImage, Reading, read_mask
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE
from maskcast.reading import pluralize

MOST = 200  # maximum number of masks that are read, if these show foreground
FEW = 8  # up to this many values are labels, more may be a soft edge
SHOWN = 6  # maximum number of values in a message
BLACK, WHITE = 0x000000, 0xFFFFFF
NEAR = 32  # how far JPEG may change black and white


@dataclass
class MaskSurvey:
    """Statistics of some masks of a set.

    Attributes:
        total: number of masks in the set.
        looked_at: number of masks that were read.
        reading: how they were read; with `colours`, values are 0xRRGGBB.
        split: how class and object were separated; values are then classes. None if values are as stored.
        forms: number of files by form, e.g. `palette`.
        pixels: number of pixels by value.
        files: number of files by value.
        first: first file with each value.
        indexed: whether all files have a form that allows only small numbers (palette or bits).
        lossy: a file whose compression changes values, or None.
        palette: by index of palettes, the colour and the first file that has it.
        unread: error of the first unreadable file; empty if all were readable.
        clash: a palette index with another colour, that colour, and its file; None if all palettes agree.
    """

    total: int = 0
    looked_at: int = 0
    reading: Reading = "stored"
    split: Split | None = None
    forms: Counter[str] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)
    first: dict[int, Path] = field(default_factory=dict)
    indexed: bool = True
    lossy: Path | None = None
    palette: dict[int, tuple[int, Path]] = field(default_factory=dict)
    clash: tuple[int, int, Path] | None = None
    unread: str = ""

    def add(self, path: Path, mask: MaskImage) -> None:
        """Adds a mask to the statistics."""
        self.looked_at += 1
        self.forms[mask.form] += 1
        self.indexed &= mask.indexed
        if mask.lossy:
            self.lossy = self.lossy or path
        for value, pixels in mask.counts().items():
            self.pixels[value] += pixels
            self.files[value] += 1
            self.first.setdefault(value, path)
        for index, colour in mask.palette.items():
            if self.palette.setdefault(index, (colour, path))[0] != colour and self.clash is None:
                self.clash = index, colour, path

    @property
    def colours(self) -> bool:
        """Whether values are colours, 0xRRGGBB."""
        return self.reading == "colours" and self.split is None

    @property
    def upside_down(self) -> bool:
        """Whether palettes are only black and white, and index 0 is white in some: then use the brightness."""
        seen = {colour for colour, _ in self.palette.values()} | ({self.clash[1]} if self.clash else set())
        zero = self.palette.get(0, (BLACK,))[0]
        alone = self.forms.keys() == {"palette"} and seen <= {BLACK, WHITE}
        return alone and (self.clash is not None or zero == WHITE)

    @property
    def values(self) -> list[int]:
        """All values, ascending."""
        return sorted(self.pixels)

    @property
    def numbered(self) -> bool:
        """Whether the greatest value is above 255 and below 16-bit white: object numbers, not brightness."""
        return not self.colours and IGNORE < max(self.pixels, default=0) < 0xFFFF

    def share(self, values: Iterable[int]) -> float:
        """Returns the fraction of all pixels that have one of these values."""
        return sum(self.pixels[value] for value in values) / max(1, self.pixels.total())

    @property
    def two_sided(self) -> bool:
        """Whether grey values are mostly black and white with few between: soft edges, or noise of JPEG.

        White must be at least a quarter of what is not black; for numbers of many objects it is less.
        """
        if self.colours or self.split or max(self.pixels, default=0) not in range(255 - NEAR, 256):
            return False
        black, white = (self.share(v for v in self.pixels if one <= v <= one + NEAR) for one in (0, 255 - NEAR))
        return black + white > 0.9 and white >= (1 - black) / 4

    def named(self, values: Sequence[int]) -> str:
        """Returns values as text, e.g. `0, 255`."""
        return named(values, colours=self.colours)

    def __str__(self) -> str:
        """The set as text, e.g. `40 masks (palette), values 0, 1, 2`."""
        forms = ", ".join(self.forms) or "none read"
        seen = "" if self.looked_at == self.total else f", {self.looked_at} looked at"
        return f"{pluralize(self.total, 'mask')} ({forms}{seen}), values {self.named(self.values)}"


def survey_masks(
    paths: Sequence[Path], ignore: int | None = None, reading: Reading | None = None, split: Split | None = None
) -> MaskSurvey:
    """Surveys masks evenly spread over a set; all masks, if those show only background.

    Unreadable masks are skipped; loading reports them.

    Args:
        paths: all masks of the set.
        ignore: pixel value that means no label.
        reading: see `read_mask`. None: `stored`, but `brightness` for black-and-white palettes with white first,
            and `colours` for all masks if some have colours that are not grey.
        split: separates class and object; None counts values as stored.
    """
    survey = _look(paths, ignore, reading or "stored", split)
    return _look(paths, ignore, "brightness") if reading is None and survey.upside_down else survey


def _look(paths: Sequence[Path], ignore: int | None, reading: Reading, split: Split | None = None) -> MaskSurvey:
    chosen = evenly_spaced(len(paths), MOST)
    rest = sorted(set(range(len(paths))) - set(chosen))
    survey = MaskSurvey(len(paths), reading=reading, split=split)
    for place, number in enumerate((*chosen, *rest)):
        if place >= len(chosen) and set(survey.pixels) - {0, ignore}:
            break
        try:
            mask = read_mask(paths[number], reading)
        except MaskcastError as error:
            survey.unread = survey.unread or str(error)
            continue
        if reading != "colours":
            grey_HW = mask.grey()
            if grey_HW is None:
                return _look(paths, ignore, "colours", split)
            mask = replace(mask, values_HW=grey_HW, colours=False)
        if split is not None:
            mask = replace(mask, values_HW=split(paths[number], mask)[0], colours=False)
        survey.add(paths[number], mask)
    return survey


def named(values: Sequence[int], *, colours: bool = False) -> str:
    """Returns the first few values as text."""
    texts = [f"#{value:06x}" if colours else str(value) for value in values]
    more = f", ... ({len(texts)} values)" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
