"""Finds files with masks in formats of other tools, such as COCO, below a folder."""

from itertools import islice
from pathlib import Path

from maskcast.data.labelling.formats.burst import is_burst
from maskcast.data.labelling.formats.coco_panoptic import is_panoptic
from maskcast.data.labelling.formats.sa_v import is_sa_v
from maskcast.data.sources.label_lists import preferred_files
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.reading import read_file, read_json

FORMAT_TITLES = {  # format name: its name in messages
    "coco": "COCO",
    "youtube-vis": "YouTube-VIS, BURST or SA-V",
    "cvat-video": "CVAT for video",
    "cvat-images": "CVAT for images",
    "label-studio": "Label Studio",
    "labelme": "labelme",
}
PANOPTIC = "coco, panoptic"  # labels all pixels, so it is preferred to COCO instances of the same images
KEYS = (b'"segmentation"', b'"segmentations"', b'"annotations"', b'"masklet"')  # one is in any JSON with masks


def find_label_files(raw: Path) -> tuple[str, list[Path]] | None:
    """Returns the format and the files of labels with masks below a folder, or None.

    If there are several formats, the one is returned that says most about objects.
    """
    return next(iter(label_files_by_format(raw).items()), None)


def label_files_by_format(raw: Path) -> dict[str, list[Path]]:
    """Returns the files of labels with masks below a folder by format, what says most about objects first."""
    found: dict[str, list[Path]] = {}
    for path in list_files(raw, ".json", ".xml"):
        if (form := label_format(path)) is not None:
            found.setdefault(form, []).append(path)
    if PANOPTIC in found:
        found["coco"] = found[PANOPTIC]
    elif len(coco := found.get("coco", [])) > 1:  # instances beside keypoints of the same images
        found["coco"] = [path for path in coco if b'"keypoints"' not in read_file(path)] or coco
    if known := {*found.get("youtube-vis", ())}:
        found["youtube-vis"] = [path for path in found["youtube-vis"] if not known & {*preferred_files(path)}]
    order = ("youtube-vis", "cvat-video", "cvat-images", "coco", "label-studio", "labelme")
    return {form: found[form] for form in order if form in found}


def label_format(path: Path) -> str | None:
    """Returns the format of a JSON or XML file with masks, or None for another file."""
    match path.suffix.lower():
        case ".json":
            return _json_format(path)
        case ".xml":
            return _xml_format(path)
    return None


def _json_format(path: Path) -> str | None:
    content = read_file(path)
    if b'"shapes"' in content and b'"imagePath"' in content:
        return "labelme"
    if not any(key in content for key in KEYS):
        return None
    try:
        value = read_json(path)
    except MaskcastError:
        if b'"segmentation' in content:
            raise
        return None  # not a label file
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
    return "coco" if "images" in value and any(one.get("segmentation") for one in masks) else None


def _xml_format(path: Path) -> str | None:
    content = read_file(path)
    if b"<annotations" not in content:
        return None
    if b"<track" in content:
        return "cvat-video"
    return "cvat-images" if b"<image " in content else None
