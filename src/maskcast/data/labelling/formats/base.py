"""The base of label formats: a format writes regions of frames to files, and reads them back.

A format handles names of classes and frames, not ids of a store; `importing.py` and `exporting.py` translate
between the two. A region with the class `IGNORED` marks pixels without label.

Legend: H height, W width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from maskcast.data.images import Size, numeric_sort
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.labels import MAX_SIDE
from maskcast.reading import read_json

IGNORED = "ignore"  # class name of pixels without label
MAX_INSTANCE_ID = (1 << 16) - 1
Empty = Literal["background", "unlabelled"]  # what a frame is that is listed without any region
FrameId = tuple[str, int]  # clip and frame index from 0: of a clip of the store, or of its video


@dataclass(frozen=True)
class Region:
    """Pixels of a frame that belong to one class, and to one object if the format tells objects apart.

    Attributes:
        class_name: as in the file.
        mask_HW: bool.
        instance: number of the object, the same in all frames of its clip; None if unknown.
        score: confidence, 0..1; None if unknown.
    """

    class_name: str
    mask_HW: np.ndarray
    instance: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class ClassList:
    """The classes that could be drawn in a label file.

    Attributes:
        file: path of the file.
        names: names of the classes in it.
    """

    file: Path
    names: frozenset[str]


@dataclass(frozen=True)
class ImportedFrame:
    """A frame that is listed in a file.

    Attributes:
        where: its name in errors, e.g. ``annotations.xml: image 3``.
        frame_ids: clips and frames that its name may refer to, the likeliest first.
        size: size of the frame as given in the file, or None.
        objects: class and object number of each region, known without reading its mask.
        regions: reads the masks: given the frame's size, returns its regions, those in front last. Can be pickled.
        names: names that its image may have, the likeliest first; empty if frames have only numbers.
        ordered: whether images with other names count as the frames of the clip, in their order.
        class_list: the classes of its file; None if the format does not list them.
        left_out: whether it has annotations that were left out, because they have no area.
    """

    where: str
    frame_ids: Sequence[FrameId]
    size: Size | None
    objects: Sequence[tuple[str, int | None]]
    regions: Callable[[Size], Iterable[Region]]
    names: Sequence[str] = ()
    ordered: bool = False
    class_list: ClassList | None = None
    left_out: bool = False

    @property
    def empty(self) -> bool:
        """Whether the frame is listed without any region."""
        return not self.objects

    def is_unlabelled(self, empty: Empty) -> bool:
        """Whether the frame is listed without any region, and that says nothing about its pixels.

        Args:
            empty: what a frame is that is listed without any annotation.
        """
        return self.empty and (self.left_out or empty == "unlabelled")


@dataclass(frozen=True)
class Export:
    """The content of an export.

    Attributes:
        classes: class names without the background, in the order of their ids.
        sizes: size of the frames of each clip.
        clips: frame indices of each clip, by its name: the id of a clip, or the name of a video.
        instances: whether regions are objects.
        regions: returns the regions of a frame.
    """

    classes: Sequence[str]
    sizes: Mapping[str, Size]
    clips: Mapping[str, Sequence[int]]
    instances: bool
    regions: Callable[[str, int], Sequence[Region]]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, and the class name of pixels without label."""
        return (*self.classes, IGNORED)

    def frames(self) -> Iterator[tuple[str, int, Sequence[Region]]]:
        """Yields clip, frame index and regions of all frames."""
        for clip, frames in self.clips.items():
            for t in frames:
                yield clip, t, self.regions(clip, t)


class LabelFormat(ABC):
    """A label format; each is in a module of its own, except for variants.

    Attributes:
        name: name on the command line.
        tool: name of the tool or data set, for messages.
        files: file names or patterns to read in a folder or archive; the first that matches any file is used.
        whole_clips: whether frames have only a number in their clip, so that clips are always written whole.
        covers_all_frames: whether a clip's file covers all frames, though only frames with regions are listed.
        duplicate_remedy: the remedy if a frame is listed twice.
        has_ambiguous_start: whether some writers count frames from 0 and others from 1.
        class_table: the classes, if the format has a fixed table of classes.
        void_classes: those of ``class_table`` that mean "no label", unless the label map has a class of that name.
        background_class: the one of ``class_table`` that stands for a background which is not in the table.
    """

    name: ClassVar[str]
    tool: ClassVar[str]
    files: ClassVar[tuple[str, ...]]
    whole_clips: ClassVar[bool] = False
    covers_all_frames: ClassVar[bool] = False
    duplicate_remedy: ClassVar[str] = "leave one of the two out"
    has_ambiguous_start: ClassVar[bool] = False
    class_table: ClassVar[tuple[str, ...]] = ()
    void_classes: ClassVar[tuple[str, ...]] = ()
    background_class: ClassVar[str | None] = None

    @abstractmethod
    def write(self, folder: Path, export: Export) -> None:
        """Writes the files into an existing folder.

        Raises:
            MaskcastError: the format cannot represent something.
        """

    def detect_first_frame(
        self,
        path: Path,
        lengths: Mapping[str, int],
        videos: Mapping[str, int],
        own_numbers: Mapping[str, Collection[int]],
        first: int | None,
    ) -> None:
        """Determines the number of a clip's first frame, before files of an ambiguous format are read.

        Args:
            path: what will be read.
            lengths: number of frames of each clip that it may belong to.
            videos: number of frames of each video, by its names in files, as far as clips show it.
            own_numbers: of videos whose images are not numbered 0, 1, 2, ... in the raw data, their numbers there.
            first: the number that the user gave, or None.

        Raises:
            MaskcastError: the user gave none, and the files do not show it.
        """
        raise NotImplementedError

    def read(self, path: Path) -> Iterator[ImportedFrame]:
        """Yields the frames of a file, or of a folder of files.

        Raises:
            MaskcastError: the file is not of this format; names file, place in the file and remedy.
        """
        for file in self.files_in(path):
            yield from self.read_file(file)

    def files_in(self, path: Path) -> list[Path]:
        """Returns the file itself, or the files of a folder for the first pattern with a match.

        Raises:
            MaskcastError: the folder has no such file.
        """
        if path.is_file():
            return [path]
        for pattern in self.files:
            matches = numeric_sort(file for file in list_files(path) if fnmatch(file.name, pattern))
            if matches:
                return matches
        raise MaskcastError(f"{path}: contains no {' or '.join(self.files)}; give a file or export of {self.tool}")

    @abstractmethod
    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the frames of a file (see ``read``)."""


class JsonFormat(LabelFormat):
    """A format whose files are JSON."""

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the frames of a file (see ``read``)."""
        return self.read_content(file, read_json(file))

    @abstractmethod
    def read_content(self, file: Path, content: Any) -> Iterator[ImportedFrame]:
        """Yields the frames of a file, given its parsed content (see ``read``)."""


def instance_ids(numbers: Sequence[int]) -> Sequence[int]:
    """Returns the ids of a clip's objects: their numbers in the file if these are valid ids, else 1, 2, ..."""
    valid = all(0 < number <= MAX_INSTANCE_ID for number in numbers) and len(set(numbers)) == len(numbers)
    return numbers if valid else range(1, 1 + len(numbers))


def checked_size(height: int, width: int, where: str) -> Size:
    """Returns the size of a frame after a check of its range."""
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise MaskcastError(f"{where}: is {width} wide and {height} high; expected 1 to {MAX_SIDE} pixels: fix it")
    return height, width
