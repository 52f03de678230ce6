"""COCO instance segmentation in one JSON; masks as polygons, run lengths, or compressed run lengths.

Written are compressed run lengths, ``score``, and CocoVID's additions: ``videos``, per image ``video_id`` and
``frame_id``, and per annotation ``instance_id``. Read are these, images identified by ``file_name``, and COCO's
panoptic format.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle

from maskcast.data.coco.masks import compressed_masks
from maskcast.data.coco.records import Records, category_names, name_forms, parse_lists
from maskcast.data.images import Size
from maskcast.data.labelling.formats.base import (
    ClassList,
    Export,
    FrameId,
    ImportedFrame,
    JsonFormat,
    Region,
    checked_size,
)
from maskcast.data.labelling.formats.coco_panoptic import is_panoptic, panoptic_frames
from maskcast.data.labelling.formats.names import frame_ids_of, frame_name
from maskcast.errors import MaskcastError
from maskcast.reading import short_repr

FILE = "annotations.json"
NO_MASK = "a box is not a mask: export masks or polygons, or boxes in CVAT's or Label Studio's own format"
RleRegion = tuple[str, int | None, float | None, Any]  # class, object, score and run lengths of a region


class Coco(JsonFormat):
    """COCO instance segmentation."""

    name = "coco"
    tool = "COCO"
    files = (FILE, "instances*.json", "*.json")

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``annotations.json``."""
        videos = {clip: k for k, clip in enumerate(export.clips, 1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        ids = {name: k for k, name in enumerate(export.labels, 1)}
        for clip, t, regions in export.frames():
            height, width = export.sizes[clip]
            image = {"id": len(images) + 1, "file_name": frame_name(clip, t), "height": height, "width": width}
            images.append(image | {"video_id": videos[clip], "frame_id": t})
            for region in regions:
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": ids[region.class_name],
                }
                annotations.append(annotation | coco_mask(region.mask_HW) | score_and_instance(region))
        content = {
            "images": images,
            "videos": [
                {"id": k, "name": clip, "height": export.sizes[clip][0], "width": export.sizes[clip][1]}
                for clip, k in videos.items()
            ],
            "categories": [{"id": k, "name": name} for name, k in ids.items()],
            "annotations": annotations,
        }
        (folder / FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")

    def read_content(self, file: Path, content: Any) -> Iterator[ImportedFrame]:
        """Yields the images of a file (see `LabelFormat.read`)."""
        if is_panoptic(content):
            yield from panoptic_frames(file, content)
            return
        images, categories, annotations = parse_lists(content, file)
        names = category_names(categories)
        row = {annotation["id"]: n for n, annotation in enumerate(images.records)}
        _require_masks(annotations)
        of_image = [row[annotation["image_id"]] for annotation in annotations.records]
        sizes = _sizes(images, set(of_image))
        masks = compressed_masks(annotations, np.array([sizes[n] for n in of_image]).reshape(-1, 2))
        grouped: dict[int, list[RleRegion]] = defaultdict(list)
        for k, (n, annotation, mask) in enumerate(zip(of_image, annotations.records, masks, strict=True)):
            grouped[n].append(
                (names[annotation["category_id"]], instance_of(annotations, k), annotation.get("score"), mask)
            )
        videos = _videos(content.get("videos", []), file, images)
        class_list = ClassList(file, frozenset(names.values()))
        for n, image in enumerate(images.records):
            where = f"{images.where}[{n}] ({image.get('file_name', image['id'])})"
            frame_ids, name = _frame_ids(images, n, videos), image["file_name"]
            yield frame_of_rle(where, frame_ids, sizes[n], grouped[n], name_forms(name), class_list)


def _sizes(images: Records, annotated: set[int]) -> list[Size | None]:
    """Returns the sizes of images; unannotated ones may have none, as Label Studio writes null."""
    without_size = {
        n
        for n, image in enumerate(images.records)
        if n not in annotated and image.get("height") is None and image.get("width") is None
    }
    sizes = Records(
        images.where,
        [{"height": 1, "width": 1} if n in without_size else image for n, image in enumerate(images.records)],
    )
    heights, widths = sizes.integers("height"), sizes.integers("width")
    return [
        None if n in without_size else checked_size(int(height), int(width), f"{images.where}[{n}]")
        for n, (height, width) in enumerate(zip(heights, widths, strict=True))
    ]


def coco_mask(mask_HW: np.ndarray) -> dict[str, Any]:
    """Returns a mask in COCO's form: compressed run lengths, area and box."""
    packed = rle.encode(np.asfortranarray(mask_HW, np.uint8))
    text = packed["counts"].decode() if isinstance(packed["counts"], bytes) else packed["counts"]
    return {
        "segmentation": {"size": list(mask_HW.shape), "counts": text},
        "area": int(mask_HW.sum()),
        "bbox": [float(value) for value in rle.toBbox(packed)],
        "iscrowd": 0,
    }


def score_and_instance(region: Region) -> dict[str, Any]:
    """Returns the keys of a COCO annotation for score and object, if known."""
    keys: dict[str, Any] = {} if region.score is None else {"score": round(region.score, 4)}
    return keys | ({} if region.instance is None else {"instance_id": region.instance})


def _require_masks(annotations: Records) -> None:
    """Refuses annotations without a mask, e.g. with only a box, which says nothing about pixels."""
    for n, mask in enumerate(annotations.column("segmentation", NO_MASK)):
        if not mask:
            annotations.fail(n, f"segmentation is empty; {NO_MASK}")


def frame_of_rle(
    where: str,
    frame_ids: Sequence[FrameId],
    size: Size | None,
    regions: Sequence[RleRegion],
    names: Sequence[str] = (),
    class_list: ClassList | None = None,
) -> ImportedFrame:
    """Returns a `ImportedFrame` with regions that are given as run lengths."""
    objects = [(class_name, instance) for class_name, instance, _, _ in regions]
    return ImportedFrame(where, frame_ids, size, objects, partial(_regions, regions), names, class_list=class_list)


def _regions(rle_regions: Sequence[RleRegion], size: Size) -> Iterator[Region]:
    for name, instance, score, mask in rle_regions:
        yield Region(name, rle.decode(mask) > 0, instance, score)


def instance_of(records: Records, n: int) -> int | None:
    """Returns the object number of an annotation, or None; several keys are in use for it."""
    annotation = records.records[n]
    attributes = annotation.get("attributes") if isinstance(annotation.get("attributes"), dict) else {}
    for value in (annotation.get("instance_id"), annotation.get("track_id"), attributes.get("track_id")):
        if value is not None:
            if type(value) is not int or value < 0:
                records.fail(n, f"object number must be an integer of at least 0, not {short_repr(value)}")
            return value
    return None


def _videos(content: Any, file: Path, images: Records) -> dict[int, str]:
    """Returns the names of the videos by id, if the file has any."""
    if not isinstance(content, list):
        raise MaskcastError(f"{file}: videos must be a list, not {short_repr(content)}; fix it")
    videos = Records(f"{file}: videos", content)
    ids = videos.unique("id")
    names = videos.column("name", "add it: the clip's id")
    for n, image in enumerate(images.records):
        if (
            "video_id" in image
            and videos.records
            and (type(image["video_id"]) is not int or image["video_id"] not in ids)
        ):
            images.fail(n, f"video_id {short_repr(image['video_id'])} is not the id of a video of {file}; fix it")
    return {int(video_id): str(name) for video_id, name in zip(ids, names, strict=True)}


def _frame_ids(images: Records, n: int, videos: dict[int, str]) -> Sequence[FrameId]:
    image = images.records[n]
    frame_ids: list[FrameId] = []
    if videos and type(image.get("frame_id")) is int and "video_id" in image:
        frame_ids.append((videos[image["video_id"]], image["frame_id"]))
    name = image.get("file_name")
    if not isinstance(name, str):
        images.fail(n, "missing key 'file_name', which identifies clip and frame; add it")
    return [*frame_ids, *frame_ids_of(name)]
