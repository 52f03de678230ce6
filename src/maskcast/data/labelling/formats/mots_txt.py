"""MOTS as text: a file per clip, a line per frame and object: frame, object, class, height, width, run lengths.

A frame without a line has no object, so the files may not show whether frames count from 0 or from 1.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from maskcast.data.coco.masks import compressed_masks
from maskcast.data.coco.records import Records
from maskcast.data.images import Size
from maskcast.data.labelling.formats.base import Export, ImportedFrame, checked_size
from maskcast.data.labelling.formats.coco import coco_mask, frame_of_rle
from maskcast.data.labelling.formats.mots import (
    LABELS,
    Mots,
    check_class_count,
    decode_value,
    encode_value,
    write_labels,
)
from maskcast.data.labelling.formats.names import clip_name
from maskcast.data.masks.panoptic import OBJECTS_PER_CLASS
from maskcast.errors import MaskcastError
from maskcast.reading import is_small_integer, read_text

FIELDS = ("frame", "object", "class", "height", "width", "run lengths")


class MotsTxt(Mots):
    """MOTS as text."""

    name = "mots-txt"
    files = ("*.txt",)
    whole_clips = True
    covers_all_frames = True

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``instances_txt/<clip>.txt`` and ``instances_txt/labels.txt``."""
        root = folder / "instances_txt"
        root.mkdir()
        check_class_count(export.classes)
        write_labels(root, export.classes)
        for clip, frames in export.clips.items():
            height, width = export.sizes[clip]
            lines = []
            for t in frames:
                for region in export.regions(clip, t):
                    value = encode_value(region, export.classes)
                    text = coco_mask(region.mask_HW)["segmentation"]["counts"]
                    lines.append(f"{t} {value} {value // OBJECTS_PER_CLASS} {height} {width} {text}")
            (root / f"{clip_name(clip)}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def files_in(self, path: Path) -> list[Path]:
        """Returns the files of the clips (see `LabelFormat.files_in`)."""
        return [file for file in super().files_in(path) if file.name != LABELS]

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the frames that have a line; without any line, the first frame (see `LabelFormat.read`)."""
        return _read(file, self)

    def frame_numbers(self, path: Path) -> Iterator[tuple[Path, str, int]]:
        """Yields the frame number of each line (see `Mots.frame_numbers`)."""
        for file in self.files_in(path):
            words = (line.partition(" ")[0] for line in _lines(file))
            yield from ((file, unquote(file.stem), int(word)) for word in words if is_small_integer(word))

    def default_first_frame(self, path: Path, frame_numbers: Sequence[tuple[Path, str, int]]) -> int:
        """Refuses to guess, unless there are no lines, which need no number."""
        if not frame_numbers:
            return 0
        raise MaskcastError(
            f"{path}: no line is of frame 0 or of a clip's last frame, so the first frame's number is unknown; "
            "use --first-frame 0 (KITTI MOTS) or 1 (MOTSChallenge)"
        )


def _lines(file: Path) -> list[str]:
    return read_text(file, "text of ASCII", "give a MOTS text file", "ascii").splitlines()


def _read(file: Path, form: MotsTxt) -> Iterator[ImportedFrame]:
    # class, object, index of the record
    objects_by_frame: dict[int, list[tuple[str, int | None, int]]] = defaultdict(list)
    sizes: set[Size] = set()
    records: list[dict[str, Any]] = []
    seen: set[tuple[int, int]] = set()
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        fields, where = line.split(), f"{file}: line {number}"
        if len(fields) != len(FIELDS) or not all(map(is_small_integer, fields[:5])):
            raise MaskcastError(f"{where}: must be {', '.join(FIELDS)}, got {line[:60]!r}; fix it")
        t, value, class_id, height, width = map(int, fields[:5])
        class_name, instance = decode_value(form.classes, value, where)
        if value // OBJECTS_PER_CLASS != class_id:
            raise MaskcastError(f"{where}: object {value} is not of class {class_id}; it is class * 1000 + object")
        if (t, value) in seen:
            raise MaskcastError(f"{where}: object {value} occurs twice in frame {t}; use unique numbers")
        seen.add((t, value))
        size = checked_size(height, width, where)
        sizes.add(size)
        objects_by_frame[t].append((class_name, instance, len(records)))
        records.append({"segmentation": {"size": list(size), "counts": fields[5]}})
    if len(sizes) > 1:
        raise MaskcastError(f"{file}: has frames of {len(sizes)} sizes; expected one: fix it")
    all_sizes = np.array([record["segmentation"]["size"] for record in records]).reshape(-1, 2)
    masks = compressed_masks(Records(f"{file}: objects", records), all_sizes)
    for t in sorted(objects_by_frame) or [form.first]:
        regions = [
            (class_name, instance, None, masks[n]) for class_name, instance, n in objects_by_frame.get(t, ())
        ]
        frame_ids, names = form.counted_from_0([(unquote(file.stem), t)])
        yield frame_of_rle(f"{file}: frame {t}", frame_ids, next(iter(sizes), None), regions, names)
