"""What a label format is: it writes regions of frames into files, and finds them in files.

A format knows names of classes and frames, no ids of a store; `label_import.py` and `label_export.py` bring both
together. A region that has the class `IGNORED` says that its pixels have no label.

Legend: H height, W width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import ClassVar

import numpy as np

from maskcast.data.images import numeric_sort
from maskcast.errors import MaskcastError
from maskcast.files import files_below
from maskcast.labels import MOST_PIXELS

IGNORED = "ignore"  # class in a file of the pixels that have no label
Size = tuple[int, int]  # height, width
Place = tuple[str, int]  # clip id, frame from 0 on


@dataclass(frozen=True)
class Region:
    """Pixels of a frame that are of one class, and of one object where the format tells objects apart.

    Attributes:
        class_name: as the file has it.
        mask_HW: bool.
        instance: number of the object, the same in all frames of its clip; None: not told.
        score: confidence, 0..1; None: not told.
    """

    class_name: str
    mask_HW: np.ndarray
    instance: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class FoundFrame:
    """A frame that a file lists.

    Attributes:
        where: how errors name it, e.g. ``annotations.xml: image 3``.
        places: what its name may mean, the likeliest first.
        size: of the frame, as the file says; None: it does not.
        objects: class and number of the object of each region, without reading its mask.
        regions: gives its regions, those in front last, for a frame of a size; reads the masks. Can be pickled.
        names: what its image may be called, the likeliest first; empty: frames have numbers alone.
        ordered: whether the images of a clip that are called otherwise are its frames in their order.
    """

    where: str
    places: Sequence[Place]
    size: Size | None
    objects: Sequence[tuple[str, int | None]]
    regions: Callable[[Size], Iterable[Region]]
    names: Sequence[str] = ()
    ordered: bool = False

    @property
    def empty(self) -> bool:
        """Whether it is listed without any region."""
        return not self.objects


@dataclass(frozen=True)
class Export:
    """What is to be written.

    Attributes:
        classes: names of the classes without the background, in the order of their ids.
        size: of every frame.
        clips: frames of each clip by its id, in order.
        instances: whether regions are objects.
        regions: gives the regions of a frame.
    """

    classes: Sequence[str]
    size: Size
    clips: Mapping[str, Sequence[int]]
    instances: bool
    regions: Callable[[str, int], Sequence[Region]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, and the name of what has no label."""
        return (*self.classes, IGNORED)

    def frames(self) -> Iterator[tuple[str, int, Sequence[Region]]]:
        """Yields clip, frame and regions of all frames."""
        for clip, frames in self.clips.items():
            for t in frames:
                yield clip, t, self.regions(clip, t)


class LabelFormat(ABC):
    """A format; one of them is one module.

    Attributes:
        name: on the command line.
        tool: what its files are called after.
        files: what it reads: names or patterns in a folder or archive, the first that is there counts.
        tracks: whether it says which object of one frame is which of another.
        scores: whether it has room for a confidence.
        whole_clips: whether frames have no name but their number in a clip, so that clips are written whole.
        fills: whether a file of a clip stands for all its frames, though it lists those with regions alone.
        twice: what to do where a frame is listed twice.
        numbered: whether its writers count frames from 0 or from 1.
        known: the classes, of a format that has a table of them.
        void: those of them whose pixels count as not labelled, unless the map has such a class.
        unnamed: the one of them that stands for a background that the table does not know.
    """

    name: ClassVar[str]
    tool: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    tracks: ClassVar[bool]
    scores: ClassVar[bool]
    whole_clips: ClassVar[bool] = False
    fills: ClassVar[bool] = False
    twice: ClassVar[str] = "leave one of the two out"
    numbered: ClassVar[bool] = False
    known: ClassVar[tuple[str, ...]] = ()
    void: ClassVar[tuple[str, ...]] = ()
    unnamed: ClassVar[str | None] = None

    @abstractmethod
    def write(self, folder: Path, export: Export) -> None:
        """Writes the files into a folder that is there.

        Raises:
            MaskcastError: the format has no room for something.
        """

    def count_frames(self, path: Path, lengths: Mapping[str, int], first: int | None) -> None:
        """Settles, before a format that is ``numbered`` is read, which number its first frames have.

        Args:
            path: what will be read.
            lengths: number of frames of the clips that it may be of.
            first: what the user says; None: nothing.

        Raises:
            MaskcastError: nobody says it, and the files do not show it.
        """
        raise NotImplementedError

    def read(self, path: Path) -> Iterator[FoundFrame]:
        """Yields the frames of a file, or of a folder of files.

        Raises:
            MaskcastError: naming file, place in it and remedy, where it is not of this format.
        """
        for file in self.files_in(path):
            yield from self.read_file(file)

    def files_in(self, path: Path) -> list[Path]:
        """Returns the file itself, or the files of a folder that match the first pattern that any matches.

        Raises:
            MaskcastError: the folder holds no such file.
        """
        if path.is_file():
            return [path]
        for pattern in self.files:
            found = numeric_sort(one for one in files_below(path) if fnmatch(one.name, pattern))
            if found:
                return found
        raise MaskcastError(f"{path}: holds no {' or '.join(self.files)}; give a file or export of {self.tool}")

    @abstractmethod
    def read_file(self, file: Path) -> Iterator[FoundFrame]:
        """Yields the frames of a file (see ``read``)."""


def checked_size(height: int, width: int, where: str) -> Size:
    """Returns the size of a frame, after a look whether there can be such a frame."""
    if not (0 < height <= MOST_PIXELS and 0 < width <= MOST_PIXELS):
        raise MaskcastError(f"{where}: is {width} wide and {height} high; allowed are 1 to {MOST_PIXELS}: mend it")
    return height, width
