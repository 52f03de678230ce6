"""CVAT for images 1.1: one XML with an element per image, named by its path in the task."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from maskcast.data.label_formats.base import Export, FoundFrame, LabelFormat, Region, Size, checked_size
from maskcast.data.label_formats.cvat import (
    FILE,
    NO_AREA,
    SHAPES,
    TWICE,
    add_attributes,
    left_out,
    mask_attributes,
    meta_element,
    names_of,
    object_of,
    parts,
    region_of,
    tasks_of,
    whole,
    write_settings,
    written,
)
from maskcast.data.label_formats.files import files_in
from maskcast.data.label_formats.names import VIDEO_FRAME, frame_name, places_of
from maskcast.data.safe_xml import read_xml
from maskcast.errors import MaskcastError
from maskcast.progress import say


class CvatImages(LabelFormat):
    """CVAT for images 1.1."""

    name = "cvat-images"
    files = (FILE, "*.xml")
    twice = TWICE
    tracks = True
    scores = True

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``annotations.xml`` and ``labels.json``, CVAT's settings of the labels."""
        root = ET.Element("annotations")
        ET.SubElement(root, "version").text = "1.1"
        frames = sum(map(len, export.clips.values()))
        root.append(meta_element("maskcast", export, frames, "annotation"))
        height, width = (str(side) for side in export.size)
        for number, (clip, t, regions) in enumerate(export.frames()):
            attributes = {"id": str(number), "name": frame_name(clip, t), "width": width, "height": height}
            image = ET.SubElement(root, "image", attributes)
            for order, region in parts(regions):
                known = {"label": region.class_name, "source": "auto", "occluded": "0"}
                given = known | mask_attributes(region.mask_HW) | {"z_order": str(order)}
                add_attributes(ET.SubElement(image, "mask", given), region)
        written(root, folder / FILE)
        write_settings(folder, export)

    def read(self, path: Path) -> Iterator[FoundFrame]:
        """Yields the images of all files (see `LabelFormat.read`)."""
        for file in files_in(path, self.files, "CVAT"):
            yield from _read(file)


def _read(file: Path) -> Iterator[FoundFrame]:
    root = read_xml(file, "CVAT for images", "give what CVAT exported")
    if root.tag != "annotations" or root.find("track") is not None or root.find("image") is None:
        other = "; it has tracks: use --format cvat-video" if root.find("track") is not None else ""
        raise MaskcastError(f"{file}: no <annotations> with <image>{other}; export `CVAT for images 1.1`")
    unusable: Counter[str] = Counter()
    ids: set[tuple[str | None, ...]] = set()
    tasks = {task.id: task for task in tasks_of(root, file)}
    for image in root.findall("image"):
        where = f"{file}: image {image.get('id')} ({image.get('name')})"
        name, known = image.get("name"), tuple(image.get(key) for key in ("subset", "task_id", "id"))
        if not name:
            raise MaskcastError(f"{where}: has no name, which tells clip and frame; export it again")
        if known in ids:
            raise MaskcastError(f"{where}: its id stands twice; give each image its own")
        ids.add(known)
        size = checked_size(whole(image, "height", where), whole(image, "width", where), where)
        unusable.update(one.tag for one in image if one.tag in NO_AREA)
        shapes = [(whole(one, "z_order", where, 0), one) for one in image if one.tag in SHAPES]
        shapes.sort(key=lambda pair: pair[0])
        layers = [one for _, one in shapes]
        objects = [object_of(one, one.get("label"), _place(n, one, where)) for n, one in enumerate(layers, 1)]
        task = tasks.get(image.get("task_id"))
        places = places_of(name)
        if task is not None and (video := VIDEO_FRAME.fullmatch(name)):
            places = [*places, *task.places(int(video[1]))]
        names = names_of(name, image.get("subset"))
        yield FoundFrame(where, places, size, objects, partial(_regions, layers, where), names)
    if unusable:
        say(left_out(unusable, file))


def _regions(shapes: Sequence[ET.Element], where: str, size: Size) -> Iterator[Region]:
    for n, one in enumerate(shapes, 1):
        yield region_of(one, one.get("label"), size, _place(n, one, where))


def _place(n: int, shape: ET.Element, where: str) -> str:
    return f"{where}: {shape.tag} {n}"
