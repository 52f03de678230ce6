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

FORMATS = {  # format name: its name in messages
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
    found: dict[str, list[Path]] = {}
    for path in list_files(raw, ".json", ".xml"):
        form = _xml_format(path) if path.suffix.lower() == ".xml" else _json_format(path)
        if form is not None:
            found.setdefault(form, []).append(path)
    order = ("youtube-vis", "cvat-video", "cvat-images", PANOPTIC, "coco", "label-studio", "labelme")
    form = next((form for form in order if form in found), None)
    if form == "coco" and len(found[form]) > 1:  # instances beside keypoints of the same images
        found[form] = [path for path in found[form] if b'"keypoints"' not in read_file(path)] or found[form]
    if form == "youtube-vis":
        known = {*found[form]}
        found[form] = [path for path in found[form] if not known & {*preferred_files(path)}]
    return None if form is None else ("coco" if form == PANOPTIC else form, found[form])


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
