"""What the label files below a folder are: one table of kinds, by which each file is read and parsed once."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from maskcast.data.archives.unpack import is_archive
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.data.labelling.formats.base import ImportedFrame, JsonFormat, LabelFormat
from maskcast.data.labelling.formats.burst import is_burst
from maskcast.data.labelling.formats.coco_panoptic import is_panoptic
from maskcast.data.labelling.formats.sa_v import is_sa_v
from maskcast.data.sources.label_lists import preferred_files
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import LFS_HEAD, LFS_POINTER, decode_text, is_lfs_pointer, open_file, parsing, read_file

FORMAT_TITLES = {  # formats of masks, what says most about objects first: the name in messages
    "youtube-vis": "YouTube-VIS, BURST or SA-V",
    "cvat-video": "CVAT for video",
    "cvat-images": "CVAT for images",
    "coco": "COCO",
    "label-studio": "Label Studio",
    "labelme": "labelme",
}
# Panoptic COCO labels all pixels, so it is preferred to instances of the same images, and these to keypoints.
COCO = PANOPTIC, INSTANCES, KEYPOINTS = "coco, panoptic", "coco", "coco, keypoints"
BOXES = "boxes"
KEYS = (b'"segmentation"', b'"segmentations"', b'"annotations"', b'"masklet"')  # one is in any JSON with masks
KEPT_BYTES = 64 << 20  # of JSON files that stay parsed, eight times as large, until their frames are read
SA_1B = "and others like it are SA-1B's, and are not read: make one COCO file of them"
SCALABEL = (
    "and others like it are Scalabel's, as BDD100K's polygons and rles are, and are not read: take the masks of "
    "the same frames (bitmasks)"
)
VIA = "is VIA's, and is not read: export its labels as COCO"
# By byte strings that all files of a kind contain, its format, ``BOXES``, or what is said of it, with the remedy.
MARKS = {
    (b"<annotations", b"<track"): "cvat-video",
    (b"<annotations", b"<image "): "cvat-images",
    (b"<bndbox",): BOXES,
    (b'"shapes"', b'"imagePath"'): "labelme",
    (LFS_HEAD,): LFS_POINTER,
    (b'"annotation_id"', b'"original_width"'): "is Label Studio's JSON-MIN, and is not read: export its JSON",
    (b'"classTitle"', b'"geometryType"'): "and others like it are Supervisely's, and are not read: export its "
    "labels as COCO",
    (b'"videoName"', b'"labels"'): SCALABEL,
    (b'"shape_attributes"', b'"region_attributes"'): VIA,
    (b'"item"', b'"slot_names"'): "and others like it are V7's, and are not read: export its labels as COCO",
    (b'"predicted_iou"', b'"stability_score"'): SA_1B,
    (b'"images"', b'"annotations"', b'"categories"', b'"bbox"'): BOXES,
}
YOLO = (
    "and others like it are YOLO's, and are not read: export COCO from the tool that wrote them, or make one COCO "
    "file of them (supervision's DetectionDataset.from_yolo with force_masks, then as_coco)"
)
YOLO_BOXES = (
    "and others like it are YOLO's boxes, and are not read, because a masker learns from masks: label polygons, "
    "export them as COCO"
)
MOTS = "is MOTS' text of run lengths, and is not read: take its images of the same masks (instances)"
KAGGLE = (
    "is a table of run lengths, as in competitions of Kaggle, and is not read: write them as PNG masks with the "
    "names of their frames"
)
ARCHIVE = "is an archive, which is not inspected: unpack the labels in it"
OTHER = (
    "seems to hold outlines or masks in a format that is not read: export COCO from the tool that wrote it, or "
    "masks as PNG with the names of their frames"
)
RUN_LENGTHS = {"encodedpixels", "encodedmask", "rle", "rlemask", "maskrle"}  # names of columns
MAX_HEADER = 4096  # bytes of a table or text that are read for its first line
# a key or an element in which tools keep what was drawn
_OUTLINES = re.compile(
    rb"[\"<](\w*poly(gon|line)?s?|segments?|segmentations?|masks?|points|counts|vertices)[\">]", re.IGNORECASE
)
_RUN_LENGTHS = re.compile(r"\d+ \d+ \d+ \d+ \d+ \S+\s*")
_NUMBERS = re.compile(r"\d+(\s+[-+]?\d*\.?\d+(e[-+]?\d+)?){4,}\s*", re.IGNORECASE)
MIN_POLYGON_WORDS = 7  # words per line of YOLO: the class, and three points


class LabelFiles:
    """The label files below a folder, each read once to tell its kind.

    Args:
        raw: the folder.
    """

    def __init__(self, raw: Path) -> None:
        self.raw = raw
        self._kinds: dict[Path, str | None] = {}
        self._parsed: dict[Path, Any] = {}  # JSON whose frames are not read yet
        self._kept = 0  # bytes of the files that were kept so
        self._damaged: list[MaskcastError] = []

    @cached_property
    def by_format(self) -> dict[str, list[Path]]:
        """The files with masks by format, what says most about objects first.

        Raises:
            MaskcastError: one is damaged.
        """
        found = defaultdict[str | None, list[Path]](list)
        for path in self._with(".json", ".xml"):
            found[self._kind_of(path)].append(path)
        if self._damaged:
            raise self._damaged[0]
        found["coco"] = next((found[kind] for kind in COCO if kind in found), [])
        instead = {*found["youtube-vis"]}
        found["youtube-vis"] = [path for path in found["youtube-vis"] if not instead & {*preferred_files(path)}]
        return {form: found[form] for form in FORMAT_TITLES if found[form]}

    def has_masks(self, path: Path) -> bool:
        """Whether a file has masks, in a format that is read."""
        return self._kind_of(path) in (*FORMAT_TITLES, *COCO)

    def read(self, form: LabelFormat, path: Path) -> Iterator[ImportedFrame]:
        """Yields the frames of a file (see ``LabelFormat.read``)."""
        if path not in self._parsed:
            return form.read(path)
        assert isinstance(form, JsonFormat)
        return form.read_content(path, self._parsed.pop(path))

    def find_boxes(self) -> Path | None:
        """Returns a file with boxes of Pascal VOC, else of COCO, or None."""
        files = (*self._with(".xml"), *self._with(".json"))
        return next((path for path in files if self._kind_of(path) == BOXES), None)

    def find_panoptic(self) -> str | None:
        """Returns the first file that maps colours to segments, or None."""
        found = (path for path in self._with(".json") if b'"segments_info"' in read_file(path))
        return next((path.relative_to(self.raw).as_posix() for path in found), None)

    def not_read(self) -> Iterator[tuple[Path, str]]:
        """Yields the label files that are not read, each with a text on what it is."""
        for path in self._files:
            kind = OTHER if self.has_masks(path) else self._kind_of(path)
            if kind is not None and kind != BOXES:
                yield path, kind

    def not_read_text(self) -> str | None:
        """Returns a line about the first of these files, or None."""
        found = ((path.relative_to(self.raw).as_posix(), what) for path, what in self.not_read())
        return next((f"{path} {what}, put it beside the frames and run init again" for path, what in found), None)

    @cached_property
    def _files(self) -> list[Path]:
        return list_files(self.raw)

    @cached_property
    def _stems(self) -> set[str]:
        return {path.stem for path in self._with(*IMAGE_SUFFIXES)}

    def _with(self, *suffixes: str) -> Iterator[Path]:
        return (path for path in self._files if path.suffix.lower() in suffixes)

    def _kind_of(self, path: Path) -> str | None:
        """Returns the format of a file, ``BOXES``, or a text on what it is; None for a file without labels."""
        if path not in self._kinds:
            kind = None
            match path.suffix.lower():
                case ".json" | ".ndjson" | ".jsonl" | ".xml":
                    kind = self._kind_by_content(path)
                case ".csv":
                    kind = _csv_text(path)
                case ".txt" if path.stem in self._stems and (text := _yolo_text(path)):  # a text for each image
                    kind = text
                case ".txt" if _RUN_LENGTHS.fullmatch(_first_line(path)):
                    kind = MOTS
                case ".zip" if is_lfs_pointer(path) or is_archive(path):
                    kind = LFS_POINTER if is_lfs_pointer(path) else ARCHIVE
            self._kinds[path] = kind
        return self._kinds[path]

    def _kind_by_content(self, path: Path) -> str | None:
        content = read_file(path)
        if path.suffix.lower() == ".json" and any(key in content for key in KEYS):
            try:
                with parsing(path, "valid JSON", "write it again, or give the path of another"):
                    value = json.loads(content)
                if (form := _format_of_json(path, content, value)) is not None:
                    self._kept += len(content)
                    if self._kept <= KEPT_BYTES:
                        self._parsed[path] = value
                    return form
            except MaskcastError as error:
                if b'"segmentation' in content:  # else it is not a label file
                    self._damaged.append(error)
        kinds = (kind for marks, kind in MARKS.items() if all(mark in content for mark in marks))
        return next(kinds, None) or (OTHER if _OUTLINES.search(content) else None)


def _format_of_json(path: Path, content: bytes, value: Any) -> str | None:
    """Returns the format of JSON with masks, or None; ``value`` is its parsed content."""
    if isinstance(value, list):
        tasks = [one for one in islice(value, 1) if isinstance(one, dict)]
        return "label-studio" if tasks and {"data", "annotations"} <= tasks[0].keys() else None
    if is_burst(value) or is_sa_v(value):
        return "youtube-vis"  # which reads both
    if not isinstance(value, dict) or not isinstance(value.get("annotations"), list):
        return None
    masks = [one for one in value["annotations"] if isinstance(one, dict)]
    if is_panoptic(value) and path.with_suffix("").is_dir():
        return PANOPTIC
    if "videos" in value and any(one.get("segmentations") for one in masks):
        return "youtube-vis"
    if "images" not in value or not any(one.get("segmentation") for one in masks):
        return None
    return KEYPOINTS if b'"keypoints"' in content else INSTANCES


def _csv_text(path: Path) -> str | None:
    """Returns a text on a table of outlines or run lengths, by its header; submissions of Kaggle are no labels."""
    columns = {cell.strip(' "').lower().replace("_", "") for cell in re.split("[,;\t]", _first_line(path))}
    if "regionshapeattributes" in columns:
        return VIA
    return KAGGLE if columns & RUN_LENGTHS and "submission" not in path.stem.lower() else None


def _first_line(path: Path) -> str:
    """Returns the beginning of the first line of a file, which may be larger than the memory."""
    with open_file(path, "text", "export it again") as file:
        head, _ = decode_text(file.read(MAX_HEADER))
    return head.splitlines()[0] if head else ""


def _yolo_text(path: Path) -> str | None:
    lines = decode_text(read_file(path))[0].splitlines()
    if not lines or not all(map(_NUMBERS.fullmatch, lines)):
        return None
    return YOLO if any(len(line.split()) >= MIN_POLYGON_WORDS for line in lines) else YOLO_BOXES
