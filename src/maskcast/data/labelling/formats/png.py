"""Plain PNG: a folder per clip, an 8-bit palette image per frame; pixel = class, 0 background, 255 no label.

``labels.txt`` names the classes, one per line, in the order of their numbers from 1; it may begin with the name of
0, a background. This is the form that most training code reads.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskcast.data.labelling.formats.base import IGNORED, Export, ImportedFrame
from maskcast.data.labelling.formats.mots import (
    LABELS,
    MotsPng,
    read_labels,
    write_labels,
)
from maskcast.data.labelling.formats.names import clip_name
from maskcast.data.masks.colours import palette_image
from maskcast.errors import MaskcastError
from maskcast.labels import IGNORE

NO_CLASS = "_background_"  # name of the value 0 in a list, as labelme writes it


class Png(MotsPng):
    """Classes as palette images; frames are numbered as in MOTS."""

    name = "png"
    tool = "masks as PNG"

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``masks/<clip>/<frame>.png`` and ``masks/labels.txt``."""
        if export.instances:
            raise MaskcastError("--format png: has no room for objects; use mots, coco or youtube-vis")
        root = folder / "masks"
        root.mkdir()
        first = [NO_CLASS] if _is_background(export.classes[0]) else []  # else it would be read as value 0
        write_labels(root, [*first, *export.classes])
        values = {name: k for k, name in enumerate(export.classes, 1)} | {IGNORED: IGNORE}
        for clip, t, regions in export.frames():
            mask_HW = np.zeros(export.sizes[clip], np.uint8)
            for region in regions:
                mask_HW[region.mask_HW] = values[region.class_name]
            place = root / clip_name(clip)
            place.mkdir(exist_ok=True)
            palette_image(mask_HW).save(place / f"{t:06d}.png")

    def class_names(self, path: Path) -> Sequence[str]:
        """Returns the names of the classes 1, 2, ...; a list may begin with the background.

        Raises:
            MaskcastError: there is no list.
        """
        names = read_labels(path)
        if not names:
            raise MaskcastError(f"{path}: has no {LABELS}; write it beside the images, a class name a line")
        return names[1:] if _is_background(names[0]) else names

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the single frame of a PNG (see `LabelFormat.read`)."""
        yield self._frame(file, partial(_class_of, self.classes))


def _is_background(name: str) -> bool:
    """Whether the first name of a list is that of the value 0."""
    return name.strip("_").lower() == "background"


def _class_of(names: Sequence[str], value: int, where: str) -> tuple[str, None]:
    """Returns the class name of a pixel value, and no object.

    Raises:
        MaskcastError: there is no such class.
    """
    if value == IGNORE:
        return IGNORED, None
    if value > len(names):
        raise MaskcastError(
            f"{where}: holds the value {value}; allowed: 0 to {len(names)} ({', '.join(names)}) and {IGNORE}: "
            f"list all classes in {LABELS}"
        )
    return names[value - 1], None
