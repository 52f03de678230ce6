"""Cityscapes: two images per frame, one of label ids (8 bits), one of instance ids (16 bits: id * 1000 + object).

Class names are those of the official table. On export, a background with a name that is not in the table becomes
`unlabeled`, id 0, and pixels without label become `out of roi`, id 3. On import, ids that the benchmark does not
evaluate mean "no label".
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from maskcast.data.images import write_image
from maskcast.data.labelling.formats.base import IGNORED, Export, FrameId, ImportedFrame, LabelFormat
from maskcast.data.labelling.formats.mots import frame_of_ids
from maskcast.data.labelling.formats.names import clip_name
from maskcast.data.masks.panoptic import OBJECTS_PER_CLASS
from maskcast.errors import MaskcastError

# The official table: name, id, whether it has instances, whether the evaluation leaves it out.
TABLE: tuple[tuple[str, int, bool, bool], ...] = (
    ("unlabeled", 0, False, True),
    ("ego vehicle", 1, False, True),
    ("rectification border", 2, False, True),
    ("out of roi", 3, False, True),
    ("static", 4, False, True),
    ("dynamic", 5, False, True),
    ("ground", 6, False, True),
    ("road", 7, False, False),
    ("sidewalk", 8, False, False),
    ("parking", 9, False, True),
    ("rail track", 10, False, True),
    ("building", 11, False, False),
    ("wall", 12, False, False),
    ("fence", 13, False, False),
    ("guard rail", 14, False, True),
    ("bridge", 15, False, True),
    ("tunnel", 16, False, True),
    ("pole", 17, False, False),
    ("polegroup", 18, False, True),
    ("traffic light", 19, False, False),
    ("traffic sign", 20, False, False),
    ("vegetation", 21, False, False),
    ("terrain", 22, False, False),
    ("sky", 23, False, False),
    ("person", 24, True, False),
    ("rider", 25, True, False),
    ("car", 26, True, False),
    ("truck", 27, True, False),
    ("bus", 28, True, False),
    ("caravan", 29, True, True),
    ("trailer", 30, True, True),
    ("train", 31, True, False),
    ("motorcycle", 32, True, False),
    ("bicycle", 33, True, False),
)
ID_OF = {name: label_id for name, label_id, _, _ in TABLE}
NAME_OF = {label_id: name for name, label_id in ID_OF.items()}
WITH_INSTANCES = {name for name, _, counted, _ in TABLE if counted}
OUT_OF_ROI, LICENSE_PLATE = 3, 255  # LICENSE_PLATE is -1 in the table
LABEL_IDS, INSTANCE_IDS = "_gtFine_labelIds.png", "_gtFine_instanceIds.png"


class Cityscapes(LabelFormat):
    """Cityscapes ids."""

    name = "cityscapes"
    tool = "Cityscapes"
    files = (f"*{INSTANCE_IDS}", f"*{LABEL_IDS}")
    class_table = tuple(name for name, *_ in TABLE)
    void_classes = tuple(name for name, _, _, left_out in TABLE if left_out)
    background_class = "unlabeled"

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``gtFine/<clip>/<clip>_000000_<frame>_gtFine_labelIds.png``, and ``..._instanceIds.png``."""
        if unknown := [name for name in export.classes if name not in ID_OF]:
            raise MaskcastError(
                f"Cityscapes has no class {unknown[0]!r} ({len(unknown)} unknown); use another format, or "
                f"the classes {', '.join(ID_OF)}"
            )
        for clip, t, regions in export.frames():
            labels_HW = np.zeros(export.sizes[clip], np.uint8)
            instances_HW = np.zeros(export.sizes[clip], np.uint16)
            for region in regions:
                name, instance = region.class_name, region.instance
                label_id = OUT_OF_ROI if name == IGNORED else ID_OF[name]
                labels_HW[region.mask_HW] = label_id
                has_instance = instance is not None and name in WITH_INSTANCES
                if (
                    instance is not None
                    and name != IGNORED
                    and not (has_instance and instance < OBJECTS_PER_CLASS)
                ):
                    raise MaskcastError(
                        f"Cityscapes does not support object {instance} of {name!r}, only 0 to "
                        f"{OBJECTS_PER_CLASS - 1} of {', '.join(sorted(WITH_INSTANCES))}; use another format"
                    )
                instances_HW[region.mask_HW] = (
                    label_id * OBJECTS_PER_CLASS + (instance or 0) if has_instance else label_id
                )
            clip_folder = folder / "gtFine" / clip_name(clip)
            clip_folder.mkdir(parents=True, exist_ok=True)
            stem = f"{clip_name(clip)}_000000_{t:06d}"
            write_image(clip_folder / f"{stem}{LABEL_IDS}", labels_HW)
            write_image(clip_folder / f"{stem}{INSTANCE_IDS}", instances_HW)

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the single frame of an image (see `LabelFormat.read`)."""
        frame = frame_of_ids(file, _frame_ids(file.name), _decode_value, include_zero=True)
        image = file.with_name(re.sub("_gtFine_.+", "_leftImg8bit.png", file.name))
        yield replace(frame, names=[image.as_posix()])


def _decode_value(value: int, where: str) -> tuple[str, int | None]:
    """Returns class name and object number of a pixel value.

    Raises:
        MaskcastError: the table has no such id.
    """
    label_id, instance = (
        (value // OBJECTS_PER_CLASS, value % OBJECTS_PER_CLASS) if value >= OBJECTS_PER_CLASS else (value, None)
    )
    if label_id == LICENSE_PLATE:
        return IGNORED, None
    if label_id not in NAME_OF:
        raise MaskcastError(
            f"{where}: value {value} is not an id of Cityscapes (0 to {max(NAME_OF)}, and id * 1000 + object); "
            "give labelIds or instanceIds, not trainIds or colours"
        )
    return NAME_OF[label_id], instance


def _frame_ids(name: str) -> Sequence[FrameId]:
    match = re.fullmatch(r"(.+?)_(\d+)_(\d{1,9})_gtFine_(?:labelIds|instanceIds)\.png", name)
    if match is None:
        return ()
    clip, frame = unquote(match[1]), int(match[3])
    return [(clip, frame), (f"{clip}_{match[2]}", frame)]
