"""MOTS as PNG: a folder per clip, a 16-bit image per frame; a pixel is class * 1000 + object, or 10000 (ignored).

Classes are named by ``labels.txt``, one a line in the order of their numbers from 1 on, as CVAT writes it. Without
the file they are those of KITTI MOTS: car and pedestrian.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskcast.data.images import write_image
from maskcast.data.label_formats.base import IGNORED, Export, FoundFrame, LabelFormat, Region, Size, checked_size
from maskcast.data.label_formats.files import files_in
from maskcast.data.label_formats.names import clip_name, places_of
from maskcast.data.masks.stored import read_mask
from maskcast.errors import MaskcastError
from maskcast.reading import read_text

PER_CLASS = 1000
IGNORE_VALUE = 10_000
MOST_CLASSES = 64  # 65 * 1000 + 999 is beyond 16 bits
LABELS = "labels.txt"
KITTI = ("car", "pedestrian")


class MotsPng(LabelFormat):
    """MOTS as PNG."""

    name = "mots"
    files = ("*.png",)
    tracks = True
    scores = False

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
        for file in files_in(path, self.files, "MOTS"):
            if path.is_dir() and "images" in file.relative_to(path).parts[:-1]:
                continue
            values_HW = read_values(file)
            values = [int(value) for value in np.unique(values_HW) if value]
            objects = [named(value, names, str(file)) for value in values]
            places = places_of(f"{file.parent.name}/{file.name}")
            size = checked_size(values_HW.shape[0], values_HW.shape[1], str(file))
            yield FoundFrame(str(file), places, size, objects, partial(_regions, file, names))


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
