"""COCO's panoptic format: one PNG per image with segment ids as colours, and a JSON with the segments' classes.

A segment id is R + 256 G + 65536 B; 0 means no label. PNGs are in a folder named after the JSON, or beside it.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from maskcast.data.coco.records import Records, category_names
from maskcast.data.images import Size
from maskcast.data.labelling.formats.base import IGNORED, ClassList, ImportedFrame, Region, checked_size
from maskcast.data.labelling.formats.names import frame_ids_of
from maskcast.data.masks.stored import read_mask
from maskcast.errors import MaskcastError
from maskcast.reading import read_file, short_repr


def is_panoptic(content: Any) -> bool:
    """Whether parsed JSON has this format."""
    annotations = content.get("annotations") if isinstance(content, dict) else None
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "segments_info" in first and "images" in content


def numbers_segments(folder: Path) -> bool:
    """Whether images of a folder hold segment ids: then a JSON of this format is named after the folder."""
    file = folder.with_name(f"{folder.name}.json")
    return file.is_file() and b'"segments_info"' in read_file(file)


def panoptic_frames(file: Path, content: Mapping[str, Any]) -> Iterator[ImportedFrame]:
    """Yields the images of a file; call it inside ``reading.parsing``.

    Raises:
        MaskcastError: an image or a category is missing.
    """
    categories, images, annotations = (
        Records(f"{file}: {key}", content[key]) for key in ("categories", "images", "annotations")
    )
    names, row = category_names(categories), {annotation["id"]: k for k, annotation in enumerate(images.records)}
    mask_folder, class_list = file.with_suffix(""), ClassList(file, frozenset(names.values()))
    folder = mask_folder if mask_folder.is_dir() else file.parent
    heights, widths = images.integers("height").tolist(), images.integers("width").tolist()
    for n, annotation in enumerate(annotations.records):
        where = f"{annotations.where}[{n}] ({annotation['file_name']})"
        if annotation["image_id"] not in row:
            annotations.fail(
                n, f"image_id {short_repr(annotation['image_id'])} is not the id of an image of {file}; fix it"
            )
        png = PurePosixPath(annotation["file_name"])
        if png.is_absolute() or ".." in png.parts:
            annotations.fail(n, "file_name must be a path below the folder of the PNGs; fix it")
        segments: dict[int, str] = {}
        for segment in annotation["segments_info"]:
            if type(segment["id"]) is not int:
                annotations.fail(n, f"id {short_repr(segment['id'])} of a segment must be an integer; fix it")
            if segment["category_id"] not in names:
                annotations.fail(
                    n, f"category_id {short_repr(segment['category_id'])} is not the id of a category; fix it"
                )
            segments[segment["id"]] = names[segment["category_id"]]
        objects = [(name, number) for number, name in segments.items()]
        read = partial(_regions, folder / png, segments)
        k = row[annotation["image_id"]]
        name, size = images.records[k]["file_name"], checked_size(heights[k], widths[k], where)
        # Cityscapes' conversion script names frames after their masks.
        names_of_image = list(dict.fromkeys((name, name.replace("_gtFine_leftImg8bit", "_leftImg8bit"))))
        shown = [(IGNORED, None), *objects] if objects else []
        yield ImportedFrame(where, frame_ids_of(name), size, shown, read, names_of_image, class_list=class_list)


def _regions(png: Path, segments: Mapping[int, str], size: Size) -> Iterator[Region]:
    mask = read_mask(png, "colours")
    if mask.lossy or mask.values_HW.shape != size:
        problem = "is a JPEG" if mask.lossy else f"is {mask.values_HW.shape}, its image {size} (height, width)"
        raise MaskcastError(f"{png}: {problem}; export PNGs of the images' sizes")
    numbers_HW = (mask.values_HW & 0xFF) << 16 | mask.values_HW & 0xFF00 | mask.values_HW >> 16
    for number in np.unique(numbers_HW).tolist():
        if number and number not in segments:
            raise MaskcastError(f"{png}: segment {number} is missing in its segments_info; export both together")
        yield Region(segments[number] if number else IGNORED, numbers_HW == number, number or None)
