"""CVAT for images 1.1: one XML with an element per image, named by the image's path in the task."""

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from maskcast.data.labelling.formats import cvat
from maskcast.data.labelling.formats.base import Export, ImportedFrame, checked_size
from maskcast.data.labelling.formats.cvat_shapes import NO_AREA, SHAPES, Shape, add_mask, integer, mask_attributes
from maskcast.data.labelling.formats.names import VIDEO_FRAME, frame_ids_of, frame_name
from maskcast.data.labelling.formats.shapes import report_without_area
from maskcast.data.safe_xml import read_xml
from maskcast.errors import MaskcastError


class CvatImages(cvat.Cvat):
    """CVAT for images 1.1."""

    name = "cvat-images"

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``annotations.xml``, and ``labels.json`` with CVAT's label settings."""
        frames = sum(map(len, export.clips.values()))
        root = cvat.task_document("maskcast", export, next(iter(export.sizes.values())), frames, "annotation")
        for number, (clip, t, regions) in enumerate(export.frames()):
            height, width = map(str, export.sizes[clip])
            attributes = {"id": str(number), "name": frame_name(clip, t), "width": width, "height": height}
            image = ET.SubElement(root, "image", attributes)
            for region, mask in mask_attributes(regions):
                label_attributes = {"label": region.class_name, "source": "auto", "occluded": "0"}
                add_mask(image, region, label_attributes | mask)
        cvat.write_document(root, folder / cvat.FILE)
        cvat.write_settings(folder, export)

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the images of a file (see `LabelFormat.read`)."""
        root = read_xml(file, "CVAT for images", "give what CVAT exported")
        if root.tag != "annotations" or root.find("track") is not None or root.find("image") is None:
            hint = "; it has tracks: use --format cvat-video" if root.find("track") is not None else ""
            raise MaskcastError(f"{file}: no <annotations> with <image>{hint}; export `CVAT for images 1.1`")
        without_area: Counter[str] = Counter()
        ids: set[tuple[str | None, ...]] = set()
        tasks = {task.id: task for task in cvat.tasks_of(root, file)}
        class_list = cvat.class_list_of(root, file)
        for image in root.findall("image"):
            where = f"{file}: image {image.get('id')} ({image.get('name')})"
            name, image_key = image.get("name"), tuple(image.get(key) for key in ("subset", "task_id", "id"))
            if not name:
                raise MaskcastError(f"{where}: has no name, which identifies clip and frame; export it again")
            if image_key in ids:
                raise MaskcastError(f"{where}: its id occurs twice; make it unique")
            ids.add(image_key)
            size = checked_size(integer(image, "height", where), integer(image, "width", where), where)
            left_out = [element.tag for element in image if element.tag in NO_AREA]
            without_area.update(left_out)
            elements = [element for element in image if element.tag in SHAPES]
            shapes = [
                Shape(element, element.get("label"), f"{where}: {element.tag} {n}")
                for n, element in enumerate(elements, 1)
            ]
            task = tasks.get(image.get("task_id"))
            frame_ids = frame_ids_of(name)
            if task is not None and (video := VIDEO_FRAME.fullmatch(name)):
                frame_ids = [*frame_ids, *task.frame_ids(int(video[1]))]
            names = cvat.names_of(name, image.get("subset"))
            yield cvat.frame_of(
                where,
                frame_ids,
                size,
                shapes,
                names,
                ordered=False,
                class_list=class_list,
                left_out=bool(left_out),
            )
        report_without_area(file, without_area)
