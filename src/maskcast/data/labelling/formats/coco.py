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
from urllib.parse import unquote

import numpy as np
from faster_coco_eval.core import mask as rle

from maskcast.data.coco.masks import packed_masks
from maskcast.data.coco.records import Records, category_names, lists_of
from maskcast.data.labelling.formats.base import Export, FoundFrame, LabelFormat, Place, Region, Size, checked_size
from maskcast.data.labelling.formats.coco_panoptic import is_panoptic, panoptic_frames
from maskcast.data.labelling.formats.names import frame_name, places_of
from maskcast.errors import MaskcastError
from maskcast.reading import read_json, short_repr

FILE = "annotations.json"
NO_MASK = "a box is no mask: export masks or polygons, or boxes in CVAT's or Label Studio's own format"
Packed = tuple[str, int | None, float | None, Any]  # class, object, score and run lengths of a region


class Coco(LabelFormat):
    """COCO instance segmentation."""

    name = "coco"
    tool = "COCO"
    files = (FILE, "instances*.json", "*.json")
    tracks = True
    scores = True

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``annotations.json``."""
        height, width = export.size
        videos = {clip: k for k, clip in enumerate(export.clips, 1)}
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        ids = {name: k for k, name in enumerate(export.labels, 1)}
        for clip, t, regions in export.frames():
            image = {"id": len(images) + 1, "file_name": frame_name(clip, t), "height": height, "width": width}
            images.append(image | {"video_id": videos[clip], "frame_id": t})
            for region in regions:
                one = {"id": len(annotations) + 1, "image_id": image["id"], "category_id": ids[region.class_name]}
                annotations.append(one | coco_mask(region.mask_HW) | extras(region))
        content = {
            "images": images,
            "videos": [{"id": k, "name": clip, "height": height, "width": width} for clip, k in videos.items()],
            "categories": [{"id": k, "name": name} for name, k in ids.items()],
            "annotations": annotations,
        }
        (folder / FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")

    def read_file(self, file: Path) -> Iterator[FoundFrame]:
        """Yields the images of a file (see `LabelFormat.read`)."""
        content = read_json(file)
        if is_panoptic(content):
            yield from panoptic_frames(file, content)
            return
        images, categories, annotations = lists_of(content, file)
        names = category_names(categories)
        row = {one["id"]: n for n, one in enumerate(images.records)}
        _refuse_empty(annotations)
        of_image = [row[one["image_id"]] for one in annotations.records]
        sizes = _sizes(images, set(of_image))
        masks = packed_masks(annotations, np.array([sizes[n] for n in of_image]).reshape(-1, 2))
        grouped: dict[int, list[Packed]] = defaultdict(list)
        for k, (n, one, mask) in enumerate(zip(of_image, annotations.records, masks, strict=True)):
            grouped[n].append((names[one["category_id"]], instance_of(annotations, k), one.get("score"), mask))
        videos = _videos(content.get("videos", []), file, images)
        for n, image in enumerate(images.records):
            where = f"{images.where}[{n}] ({image.get('file_name', image['id'])})"
            places, name = _places(images, n, videos), image["file_name"]
            yield packed_frame(where, places, sizes[n], grouped[n], list(dict.fromkeys([name, unquote(name)])))


def _sizes(images: Records, annotated: set[int]) -> list[Size | None]:
    """Returns the sizes of images; unannotated ones may have none, as Label Studio writes null."""
    bare = {
        n
        for n, one in enumerate(images.records)
        if n not in annotated and one.get("height") is None and one.get("width") is None
    }
    given = Records(
        images.where, [{"height": 1, "width": 1} if n in bare else one for n, one in enumerate(images.records)]
    )
    heights, widths = given.integers("height"), given.integers("width")
    return [
        None if n in bare else checked_size(int(height), int(width), f"{images.where}[{n}]")
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


def extras(region: Region) -> dict[str, Any]:
    """Returns the keys of a COCO annotation for score and object, if known."""
    found: dict[str, Any] = {} if region.score is None else {"score": round(region.score, 4)}
    return found | ({} if region.instance is None else {"instance_id": region.instance})


def _refuse_empty(annotations: Records) -> None:
    """Refuses annotations without a mask, e.g. with only a box, which says nothing about pixels."""
    for n, mask in enumerate(annotations.column("segmentation", NO_MASK)):
        if not mask:
            annotations.fail(n, f"segmentation is empty; {NO_MASK}")


def packed_frame(
    where: str, places: Sequence[Place], size: Size | None, found: Sequence[Packed], names: Sequence[str] = ()
) -> FoundFrame:
    """Returns a `FoundFrame` with regions that are given as run lengths."""
    objects = [(class_name, instance) for class_name, instance, _, _ in found]
    return FoundFrame(where, places, size, objects, partial(_regions, found), names)


def _regions(found: Sequence[Packed], size: Size) -> Iterator[Region]:
    for name, instance, score, mask in found:
        yield Region(name, rle.decode(mask) > 0, instance, score)


def instance_of(records: Records, n: int) -> int | None:
    """Returns the object number of an annotation, or None; several keys are in use for it."""
    one = records.records[n]
    attributes = one.get("attributes") if isinstance(one.get("attributes"), dict) else {}
    for value in (one.get("instance_id"), one.get("track_id"), attributes.get("track_id")):
        if value is not None:
            if type(value) is not int or value < 0:
                records.fail(n, f"number of the object must be an integer of at least 0, not {short_repr(value)}")
            return value
    return None


def _videos(content: Any, file: Path, images: Records) -> dict[int, str]:
    """Returns the names of the videos by id, if the file has any."""
    if not isinstance(content, list):
        raise MaskcastError(f"{file}: videos must be a list, not {short_repr(content)}; fix it")
    videos = Records(f"{file}: videos", content)
    ids = videos.unique("id")
    names = videos.column("name", "add it: the clip's id")
    for n, one in enumerate(images.records):
        if (
            "video_id" in one
            and videos.records
            and (type(one["video_id"]) is not int or one["video_id"] not in ids)
        ):
            images.fail(n, f"video_id {short_repr(one['video_id'])} is no video of {file}; fix it")
    return {int(video_id): str(name) for video_id, name in zip(ids, names, strict=True)}


def _places(images: Records, n: int, videos: dict[int, str]) -> Sequence[Place]:
    image = images.records[n]
    found: list[Place] = []
    if videos and type(image.get("frame_id")) is int and "video_id" in image:
        found.append((videos[image["video_id"]], image["frame_id"]))
    name = image.get("file_name")
    if not isinstance(name, str):
        images.fail(n, "lacks 'file_name', which tells clip and frame; add it")
    return [*found, *places_of(name)]
