"""Recognises label files in unsupported formats, and names the remedy."""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from maskcast.data.archives.unpack import is_archive
from maskcast.data.images import IMAGE_SUFFIXES
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import LFS_POINTER, decode_text, is_lfs_pointer, open_file, read_file, read_text

REMEDY = "put it beside the frames and run init again"
VIA = "is VIA's, and is not read: export its labels as COCO"
JSON_FORMATS = {  # byte strings that all files of a format contain: message with remedy
    (b'"annotation_id"', b'"original_width"'): "is Label Studio's JSON-MIN, and is not read: export its JSON",
    (b'"classTitle"', b'"geometryType"'): "and others like it are Supervisely's, and are not read: export its "
    "labels as COCO",
    (
        b'"videoName"',
        b'"labels"',
    ): "and others like it are Scalabel's, as BDD100K's polygons and rles are, and are "
    "not read: take the masks of the same frames (bitmasks)",
    (b'"shape_attributes"', b'"region_attributes"'): VIA,
    (b'"item"', b'"slot_names"'): "and others like it are V7's, and are not read: export its labels as COCO",
    (
        b'"predicted_iou"',
        b'"stability_score"',
    ): "and others like it are SA-1B's, and are not read: make one COCO file of them",
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
RUN_LENGTHS = {"encodedpixels", "encodedmask", "rle", "rlemask", "maskrle"}  # names of columns
MAX_HEADER = 4096  # bytes of a table or text that are read for its first line
OTHER = (
    "seems to hold outlines or masks in a format that is not read: export COCO from the tool that wrote it, or "
    "masks as PNG with the names of their frames"
)
# a key or an element in which tools keep what was drawn
_OUTLINES = re.compile(
    rb"[\"<](\w*poly(gon|line)?s?|segments?|segmentations?|masks?|points|counts|vertices)[\">]", re.IGNORECASE
)
_RUN_LENGTHS = re.compile(r"\d+ \d+ \d+ \d+ \d+ \S+\s*")
_NUMBERS = re.compile(r"\d+(\s+[-+]?\d*\.?\d+(e[-+]?\d+)?){4,}\s*", re.IGNORECASE)
MIN_POLYGON_WORDS = 7  # words per line: the class, and three points


def unsupported_labels_text(raw: Path) -> str | None:
    """Returns a line about the first unsupported label file below a folder, or None."""
    found = ((path.relative_to(raw).as_posix(), what) for path, what in unsupported_labels(raw))
    return next((f"{path} {what}, {REMEDY}" for path, what in found), None)


def unsupported_labels(raw: Path, known: Collection[Path] = ()) -> Iterator[tuple[Path, str]]:
    """Yields the unsupported label files below a folder but ``known`` ones, each with a text on what it is."""
    files = [path for path in list_files(raw) if path not in known]
    # YOLO has a text for each image
    stems = {path.stem for path in files if path.suffix.lower() in IMAGE_SUFFIXES}
    for path in files:
        what = None
        match path.suffix.lower():
            case ".json" | ".xml" | ".zip" if is_lfs_pointer(path):
                what = LFS_POINTER
            case ".json" | ".ndjson" | ".jsonl" | ".xml":
                what = _json_text(path)
            case ".csv":
                what = _csv_text(path)
            case ".txt":
                what = _yolo_text(path, stems) or _mots_text(path)
            case ".zip" if is_archive(path):
                what = "is an archive, which is not inspected: unpack the labels in it"
        if what is not None:
            yield path, what


def find_panoptic_file(raw: Path) -> str | None:
    """Returns the first file below a folder that maps colours to segments, or None."""
    found = (path for path in list_files(raw, ".json") if b'"segments_info"' in read_file(path))
    return next((path.relative_to(raw).as_posix() for path in found), None)


def _csv_text(path: Path) -> str | None:
    """Returns a text on a table of outlines or run lengths, by its header; submissions of Kaggle are no labels."""
    columns = {cell.strip(' "').lower().replace("_", "") for cell in re.split("[,;\t]", _first_line(path))}
    if "regionshapeattributes" in columns:
        return VIA
    return KAGGLE if columns & RUN_LENGTHS and "submission" not in path.stem.lower() else None


def _json_text(path: Path) -> str | None:
    content = read_file(path)
    known = (what for keys, what in JSON_FORMATS.items() if all(key in content for key in keys))
    return next(known, OTHER if _OUTLINES.search(content) else None)


def _mots_text(path: Path) -> str | None:
    return MOTS if _RUN_LENGTHS.fullmatch(_first_line(path)) else None


def _first_line(path: Path) -> str:
    """Returns the beginning of the first line of a file, which may be larger than the memory."""
    with open_file(path, "text", "export it again") as file:
        head, _ = decode_text(file.read(MAX_HEADER))
    return head.splitlines()[0] if head else ""


def _yolo_text(path: Path, stems: set[str]) -> str | None:
    if path.stem not in stems:
        return None
    try:
        lines = read_text(path, "text", "export it again").splitlines()
    except MaskcastError:
        return None
    if not lines or not all(map(_NUMBERS.fullmatch, lines)):
        return None
    return YOLO if any(len(line.split()) >= MIN_POLYGON_WORDS for line in lines) else YOLO_BOXES
