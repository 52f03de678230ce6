"""YouTube-VIS: one JSON of videos; an annotation is one object, with a mask or null per frame of its video.

A video lists its labelled frames by file name. This module also reads BURST and SA-V, which hold the same in other
forms.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.coco.masks import compressed_masks
from maskcast.data.coco.records import Records, category_names
from maskcast.data.labelling.formats.base import (
    ClassList,
    Export,
    ImportedFrame,
    JsonFormat,
    Region,
    checked_size,
)
from maskcast.data.labelling.formats.burst import burst_lists, is_burst
from maskcast.data.labelling.formats.coco import RleRegion, coco_mask, frame_of_rle, instance_of
from maskcast.data.labelling.formats.names import frame_ids_of, frame_name
from maskcast.data.labelling.formats.sa_v import is_sa_v, sa_v_lists
from maskcast.errors import MaskcastError
from maskcast.reading import short_repr

FILE = "instances.json"
LISTS = ("videos", "categories", "annotations")


class YouTubeVis(JsonFormat):
    """YouTube-VIS."""

    name = "youtube-vis"
    tool = "YouTube-VIS"
    files = (FILE, "*.json")

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``instances.json``."""
        ids = {name: k for k, name in enumerate(export.labels, 1)}
        videos: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, (clip, frames) in enumerate(export.clips.items(), 1):
            names = [frame_name(clip, t) for t in frames]
            height, width = export.sizes[clip]
            video = {"id": number, "width": width, "height": height, "length": len(names), "file_names": names}
            videos.append(video)
            objects: dict[tuple[str, int | None], dict[int, Region]] = defaultdict(dict)
            for k, t in enumerate(frames):
                for region in export.regions(clip, t):
                    objects[region.class_name, region.instance][k] = region
            for (class_name, instance), visible in objects.items():
                masks = {k: coco_mask(region.mask_HW) for k, region in visible.items()}
                masks_by_key: dict[str, Any] = {
                    key: [masks[k][mask_key] if k in masks else None for k in range(len(names))]
                    for key, mask_key in (("segmentations", "segmentation"), ("bboxes", "bbox"), ("areas", "area"))
                }
                scores = [region.score for region in visible.values() if region.score is not None]
                masks_by_key |= {"score": round(float(np.mean(scores)), 4)} if scores else {}
                masks_by_key |= {} if instance is None else {"instance_id": instance}
                header = {"id": len(annotations) + 1, "video_id": number, "category_id": ids[class_name]}
                annotations.append(header | masks_by_key | {"iscrowd": 0, "width": width, "height": height})
        categories = [{"id": k, "name": name} for name, k in ids.items()]
        content = {"videos": videos, "categories": categories, "annotations": annotations}
        (folder / FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")

    def read_content(self, file: Path, content: Any) -> Iterator[ImportedFrame]:
        """Yields the frames of all videos of a file (see `LabelFormat.read`)."""
        return _read(file, content)


def _read(file: Path, content: Any) -> Iterator[ImportedFrame]:
    videos, categories, annotations = _lists(file, content)
    names = category_names(categories)
    video_ids = videos.unique("id")
    annotations.unique("id")
    annotations.known("category_id", categories.integers("id"), f"a category of {file}")
    annotations.known("video_id", video_ids, f"a video of {file}")
    heights, widths = videos.integers("height"), videos.integers("width")
    frames = videos.column("file_names", "add it: the image of each frame")
    class_list = ClassList(file, frozenset(names.values()))
    row = {int(video_id): n for n, video_id in enumerate(video_ids)}
    grouped: dict[tuple[int, int], list[RleRegion]] = defaultdict(list)
    for n, files in enumerate(frames):
        if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
            videos.fail(n, f"file_names must be a list of strings, not {short_repr(files)}; fix it")
        checked_size(int(heights[n]), int(widths[n]), f"{videos.where}[{n}]")
    for n, annotation in enumerate(annotations.records):
        video = row[annotation["video_id"]]
        masks = annotation.get("segmentations")
        if not isinstance(masks, list) or len(masks) != len(frames[video]):
            found = len(masks) if isinstance(masks, list) else short_repr(masks)
            annotations.fail(
                n, f"segmentations must be one per frame of its video, {len(frames[video])}, not {found}"
            )
        visible = [k for k, mask in enumerate(masks) if mask is not None]
        stated_instance = instance_of(annotations, n)
        instance = annotation["id"] if stated_instance is None else stated_instance  # each annotation is an object
        where = f"{annotations.where}[{n}]: segmentations"
        size = np.array([[heights[video], widths[video]]] * len(visible)).reshape(-1, 2)
        visible_masks = [{"id": frames[video][k], "segmentation": masks[k]} for k in visible]
        for k, mask in zip(visible, compressed_masks(Records(where, visible_masks), size), strict=True):
            grouped[video, k].append((names[annotation["category_id"]], instance, annotation.get("score"), mask))
    for n, files in enumerate(frames):
        for k, name in enumerate(files):
            where = f"{videos.where}[{n}].file_names[{k}] ({name})"
            frame_size = int(heights[n]), int(widths[n])
            yield frame_of_rle(where, frame_ids_of(name), frame_size, grouped.get((n, k), []), [name], class_list)


def _lists(file: Path, content: Any) -> tuple[Records, Records, Records]:
    """Returns videos, categories and annotations of a file in any of the three formats."""
    if is_burst(content):
        return burst_lists(file, content)
    if is_sa_v(content):
        return sa_v_lists(file, content)
    if not isinstance(content, dict) or any(not isinstance(content.get(key), list) for key in LISTS):
        raise MaskcastError(
            f"{file}: not YouTube-VIS, which is an object with the lists {', '.join(LISTS)}; export it again"
        )
    videos, categories, annotations = (Records(f"{file}: {key}", content[key]) for key in LISTS)
    return videos, categories, annotations
