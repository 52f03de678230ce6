"""MOTS as PNG: a folder per clip, a 16-bit image per frame; a pixel is class * 1000 + object, or 10000 (ignored).

Classes are named by ``labels.txt``, one a line in the order of their numbers from 1 on, as CVAT writes it. Without
the file they are those of KITTI MOTS: car and pedestrian. KITTI MOTS counts frames from 0, as we do, MOTSChallenge
from 1.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskcast.data.images import write_image
from maskcast.data.label_formats.base import (
    IGNORED,
    Export,
    FoundFrame,
    LabelFormat,
    Place,
    Region,
    Size,
    checked_size,
)
from maskcast.data.label_formats.files import files_in
from maskcast.data.label_formats.names import clip_name, places_of
from maskcast.data.masks.stored import read_mask
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import read_text

PER_CLASS = 1000
IGNORE_VALUE = 10_000
MOST_CLASSES = 64  # 65 * 1000 + 999 is beyond 16 bits
LABELS = "labels.txt"
KITTI = ("car", "pedestrian")


class Mots(LabelFormat):
    """What both forms of MOTS share."""

    tracks = True
    scores = False
    numbered = True
    first = 0  # number of a clip's first frame in what is read

    def count_frames(self, path: Path, lengths: Mapping[str, int], first: int | None) -> None:
        """Settles which number the first frames have (see `LabelFormat.count_frames`)."""
        numbers = list(self.numbers(path))
        zero = next((file for file, _, t in numbers if t == 0), None)
        last = any(t == lengths.get(clip) for _, clip, t in numbers)  # beyond the end, were they counted from 0
        beyond = any(t > lengths.get(clip, t) for _, clip, t in numbers)  # which is said where it is read
        if first == 1 and zero is not None:
            raise MaskcastError(f"--first-frame 1: {zero} has a frame 0; leave the flag out")
        if first is None and zero is None and not beyond:
            first = 1 if last else self.undecided(path, numbers)
        self.first = first or 0

    @abstractmethod
    def numbers(self, path: Path) -> Iterator[tuple[Path, str, int]]:
        """Yields file, clip and number of each frame that is listed with objects."""

    @abstractmethod
    def undecided(self, path: Path, numbers: Sequence[tuple[Path, str, int]]) -> int:
        """Returns the number of the first frames where no frame 0 and no last frame is listed."""


class MotsPng(Mots):
    """MOTS as PNG."""

    name = "mots"
    files = ("*.png",)

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``instances/<clip>/<frame>.png`` and ``instances/labels.txt``."""
        root = folder / "instances"
        root.mkdir()
        write_labels(root, export.classes)
        for clip, t, regions in export.frames():
            values_HW = np.zeros(export.size, np.uint16)
            for region in regions:
                values_HW[region.mask_HW] = value_of(region, export.classes)
            place = root / clip_name(clip)
            place.mkdir(exist_ok=True)
            write_image(place / f"{t:06d}.png", values_HW)

    def read(self, path: Path) -> Iterator[FoundFrame]:
        """Yields the frames of all PNGs (see `LabelFormat.read`)."""
        names = read_labels(path)
        for file, places in self._places(path):
            values_HW = read_values(file)
            values = [int(value) for value in np.unique(values_HW) if value]
            objects = [named(value, names, str(file)) for value in values]
            counted_from_0 = [(clip, t - self.first) for clip, t in places]
            size = checked_size(values_HW.shape[0], values_HW.shape[1], str(file))
            yield FoundFrame(str(file), counted_from_0, size, objects, partial(_regions, file, names))

    def numbers(self, path: Path) -> Iterator[tuple[Path, str, int]]:
        """Yields what the names of the images may mean (see `Mots.numbers`)."""
        for file, places in self._places(path):
            yield from ((file, clip, t) for clip, t in places)

    def undecided(self, path: Path, numbers: Sequence[tuple[Path, str, int]]) -> int:
        """Takes names for ours, which count from 0, and says so."""
        if numbers:
            say("no image is of frame 0 or of a clip's last frame: counted from 0 (--first-frame 1: from 1)")
        return 0

    def _places(self, path: Path) -> Iterator[tuple[Path, list[Place]]]:
        """Yields the images of labels, and what their names may mean."""
        for file in files_in(path, self.files, "MOTS"):
            if not (path.is_dir() and "images" in file.relative_to(path).parts[:-1]):
                yield file, places_of(f"{file.parent.name}/{file.name}")


def read_values(file: Path) -> np.ndarray:
    """Returns the ids of a label image, (H, W) int32.

    Raises:
        MaskcastError: it is damaged, has colours, or is compressed with loss.
    """
    mask = read_mask(file)
    values_HW = mask.grey()
    if values_HW is None or mask.lossy:
        raise MaskcastError(
            f"{file}: holds {mask.form} where ids are wanted; export ids as PNG, 8 or 16 bits grey"
        )
    return values_HW


def write_labels(root: Path, classes: Sequence[str]) -> None:
    """Writes the names of the classes; at most `MOST_CLASSES` have room in 16 bits."""
    if len(classes) > MOST_CLASSES:
        raise MaskcastError(
            f"MOTS has room for {MOST_CLASSES} classes, the map has {len(classes)}; export another format"
        )
    (root / LABELS).write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")


def read_labels(path: Path) -> tuple[str, ...]:
    """Returns the names of the classes from ``labels.txt`` in or beside what is read, or those of KITTI MOTS."""
    inside = sorted(path.rglob(LABELS)) if path.is_dir() else []
    for file in [*inside, *(folder / LABELS for folder in path.parents[:2])]:
        if file.is_file():
            lines = read_text(file, "UTF-8", "write a class name a line").splitlines()
            return tuple(line.strip() for line in lines if line.strip())
    return KITTI


def value_of(region: Region, classes: Sequence[str]) -> int:
    """Returns the value of a region's pixels."""
    if region.class_name == IGNORED:
        return IGNORE_VALUE
    instance = 1 if region.instance is None else region.instance
    if not 0 < instance < PER_CLASS:
        raise MaskcastError(
            f"MOTS has room for objects 1 to {PER_CLASS - 1}, a clip has object {instance}; export another format"
        )
    return PER_CLASS * (1 + classes.index(region.class_name)) + instance


def named(value: int, names: Sequence[str], where: str) -> tuple[str, int | None]:
    """Returns class name and object of a value.

    Raises:
        MaskcastError: there is no such class.
    """
    if value == IGNORE_VALUE:
        return IGNORED, None
    class_id, instance = divmod(value, PER_CLASS)
    if not 0 < class_id <= len(names):
        raise MaskcastError(
            f"{where}: value {value} is of class {class_id}; there are 1 to {len(names)} ({', '.join(names)}): "
            f"list all classes in {LABELS}"
        )
    return names[class_id - 1], instance


def _regions(file: Path, names: Sequence[str], size: Size) -> Iterator[Region]:
    values_HW = read_values(file)
    for value in np.unique(values_HW):
        if value:
            name, instance = named(int(value), names, str(file))
            yield Region(name, values_HW == value, instance)
