"""Looks at the masks of a whole set before one of them is used: what values they hold, and in what form.

`rules` decides from it which class each value is.
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
from maskcast.reading import counted

MOST = 200  # masks looked at, where these show foreground
FEW = 8  # values up to which they are labels, and not the soft edge of one
SHOWN = 6  # values named in a line
BLACK, WHITE = 0x000000, 0xFFFFFF
NEAR = 32  # how far a JPEG may move black and white


@dataclass
class MaskSurvey:
    """What some masks hold.

    Attributes:
        total: masks of the set.
        looked_at: those that were read.
        reading: how they were read; values are colours, 0xRRGGBB, if as `colours`.
        split: how class and object were told apart, so that values are classes; None where they are as stored.
        forms: files by form, e.g. `palette`.
        pixels: pixels by value.
        files: files by value.
        first: the first file with each value.
        indexed: whether all files are of a form that holds small numbers, a palette or bits.
        lossy: a file whose compression changes values; None without one.
        palette: colour by index, and the first file that has it, of masks with palettes.
        unread: why the first of those that could not be read could not; empty where all were.
        clash: an index, and a file in which it has another colour; None where all palettes agree.
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
        """Counts a mask."""
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
        """Whether palettes are black and white alone, and index 0 is white in some: a grey image in disguise."""
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
        """Whether values are above 255 and below the white of 16 bits: no brightness, but numbers of objects."""
        return not self.colours and IGNORE < max(self.pixels, default=0) < 0xFFFF

    def share(self, values: Iterable[int]) -> float:
        """Returns the share of some values among all pixels."""
        return sum(self.pixels[value] for value in values) / max(1, self.pixels.total())

    @property
    def two_sided(self) -> bool:
        """Whether grey values are black and white, and few in between: soft edges of a mask, or JPEG's noise.

        White is a quarter at least of what is not black: of the numbers of many objects it is less.
        """
        if self.colours or self.split or max(self.pixels, default=0) not in range(255 - NEAR, 256):
            return False
        black, white = (self.share(v for v in self.pixels if one <= v <= one + NEAR) for one in (0, 255 - NEAR))
        return black + white > 0.9 and white >= (1 - black) / 4

    def named(self, values: Sequence[int]) -> str:
        """Returns values in words, e.g. `0, 255`."""
        return named(values, colours=self.colours)

    def __str__(self) -> str:
        """The set in words, e.g. `40 masks (palette), values 0, 1, 2`."""
        forms = ", ".join(self.forms) or "none read"
        seen = "" if self.looked_at == self.total else f", {self.looked_at} looked at"
        return f"{counted(self.total, 'mask')} ({forms}{seen}), values {self.named(self.values)}"


def survey_masks(
    paths: Sequence[Path], ignore: int | None = None, reading: Reading | None = None, split: Split | None = None
) -> MaskSurvey:
    """Looks at masks, evenly spread over a set; at all of them where those hold nothing but background.

    Masks that cannot be read are passed over: whoever loads them says so.

    Args:
        paths: of the whole set.
        ignore: a value that means no label.
        reading: see `read_mask`; None: `stored`, but `brightness` of palettes of black and white, white first.
            Where colours are no grey, all masks are read as `colours`.
        split: tells class and object apart; None counts values as they are.
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
    """Returns values in words, the first few of many."""
    texts = [f"#{value:06x}" if colours else str(value) for value in values]
    more = f", ... ({len(texts)} values)" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more
