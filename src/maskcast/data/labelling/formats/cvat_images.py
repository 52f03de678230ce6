"""CVAT for images 1.1: one XML with an element per image, named by the image's path in the task."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from maskcast.data.labelling.formats import cvat
from maskcast.data.labelling.formats.base import Export, FoundFrame, checked_size
from maskcast.data.labelling.formats.cvat_shapes import NO_AREA, SHAPES, Shape, add_mask, whole, written_masks
from maskcast.data.labelling.formats.names import VIDEO_FRAME, frame_name, places_of
from maskcast.data.labelling.formats.shapes import say_without_area
from maskcast.data.safe_xml import read_xml
from maskcast.errors import MaskcastError


class CvatImages(cvat.Cvat):
    """CVAT for images 1.1."""

    name = "cvat-images"

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``annotations.xml``, and ``labels.json`` with CVAT's label settings."""
        frames = sum(map(len, export.clips.values()))
        root = cvat.document("maskcast", export, frames, "annotation")
        height, width = (str(side) for side in export.size)
        for number, (clip, t, regions) in enumerate(export.frames()):
            attributes = {"id": str(number), "name": frame_name(clip, t), "width": width, "height": height}
            image = ET.SubElement(root, "image", attributes)
            for region, mask in written_masks(regions):
                known = {"label": region.class_name, "source": "auto", "occluded": "0"}
                add_mask(image, region, known | mask)
        cvat.written(root, folder / cvat.FILE)
        cvat.write_settings(folder, export)

    def read_file(self, file: Path) -> Iterator[FoundFrame]:
        """Yields the images of a file (see `LabelFormat.read`)."""
        root = read_xml(file, "CVAT for images", "give what CVAT exported")
        if root.tag != "annotations" or root.find("track") is not None or root.find("image") is None:
            other = "; it has tracks: use --format cvat-video" if root.find("track") is not None else ""
            raise MaskcastError(f"{file}: no <annotations> with <image>{other}; export `CVAT for images 1.1`")
        unusable: Counter[str] = Counter()
        ids: set[tuple[str | None, ...]] = set()
        tasks = {task.id: task for task in cvat.tasks_of(root, file)}
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
            drawn = [one for one in image if one.tag in SHAPES]
            shapes = [Shape(one, one.get("label"), f"{where}: {one.tag} {n}") for n, one in enumerate(drawn, 1)]
            task = tasks.get(image.get("task_id"))
            places = places_of(name)
            if task is not None and (video := VIDEO_FRAME.fullmatch(name)):
                places = [*places, *task.places(int(video[1]))]
            names = cvat.names_of(name, image.get("subset"))
            yield cvat.frame_of(where, places, size, shapes, names, ordered=False)
        say_without_area(file, unusable)
