"""Label Studio: a list of tasks in JSON; regions drawn by brush, as bitmasks, polygons, rectangles or ellipses.

A task's ``data`` holds clip and frame, and exports keep it; without these keys, the name of the image gives clip
and frame. Labels of people are ``annotations``. If a task has several, the last one marked as ground truth counts,
else the last one. Written are ``predictions``, which become labels only when somebody submits them.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import quoteattr

import numpy as np

from maskcast.data.coco.records import Records
from maskcast.data.images import IMAGE_SUFFIXES, Size
from maskcast.data.labelling.formats.base import Export, FrameId, ImportedFrame, JsonFormat, Region, checked_size
from maskcast.data.labelling.formats.brush import decode, encode
from maskcast.data.labelling.formats.names import frame_ids_of, frame_name
from maskcast.data.labelling.formats.shapes import (
    decode_base64_image,
    ellipse,
    polygon,
    rectangle,
    report_without_area,
)
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import short_repr

FILE = "tasks.json"
CONFIG = "label-config.xml"
LOCAL = "/data/local-files/?d=images/"  # below LOCAL_FILES_DOCUMENT_ROOT of Label Studio's server
PNG = "data:image/png;base64,"
TAGS = ("brush", "bitmask", "polygon", "rectangle", "ellipse")
NO_AREA = ("keypoint", "vector")  # reported, and left out


class LabelStudio(JsonFormat):
    """Label Studio's tasks with annotations."""

    name = "label-studio"
    tool = "Label Studio"
    files = (FILE, "*.json")
    part = "annotations"

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``tasks.json``, and ``label-config.xml``, the labelling interface."""
        tasks = []
        for clip, t, regions in export.frames():
            height, width = export.sizes[clip]
            frame = {"original_width": width, "original_height": height, "image_rotation": 0}
            result = []
            for number, region in enumerate(regions):
                value = {"format": "rle", "rle": encode(region.mask_HW), "brushlabels": [region.class_name]}
                header = {
                    "id": f"region{number}",
                    "type": "brushlabels",
                    "from_name": "labels",
                    "to_name": "image",
                }
                score = {} if region.score is None else {"score": round(region.score, 4)}
                result.append(header | frame | {"value": value} | score)
            scores = [region.score for region in regions if region.score is not None]
            score = {"score": round(float(np.mean(scores)), 4)} if scores else {}
            data = {"image": LOCAL + frame_name(clip, t), "clip": clip, "frame": t}
            tasks.append({"data": data, "predictions": [{"model_version": "maskcast", "result": result} | score]})
        (folder / FILE).write_text(json.dumps(tasks) + "\n", encoding="utf-8")
        labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in export.labels)
        (folder / CONFIG).write_text(
            '<View>\n  <Image name="image" value="$image"/>\n  <BrushLabels name="labels" toName="image">\n'
            f"{labels}\n  </BrushLabels>\n</View>\n",
            encoding="utf-8",
        )

    def read_content(self, file: Path, content: Any) -> Iterator[ImportedFrame]:
        """Yields the tasks that have annotations (see `LabelFormat.read`)."""
        return _read(file, content, self.part)


class LabelStudioPredictions(LabelStudio):
    """Label Studio's tasks with predictions."""

    name = "label-studio-predictions"
    part = "predictions"


def _read(file: Path, content: Any, part: str) -> Iterator[ImportedFrame]:
    if not isinstance(content, list):
        raise MaskcastError(
            f"{file}: Label Studio's JSON is a list of tasks, not {short_repr(content)}; export `JSON`"
        )
    tasks = Records(f"{file}: tasks", content)
    without_labels = several = 0
    left_out: Counter[str] = Counter()
    ids: set[str] = set()
    for n, data in enumerate(tasks.column("data", "export the format `JSON`, not `JSON-MIN`")):
        task = tasks.records[n]
        if "id" in task and str(task["id"]) in ids:
            tasks.fail(n, "its id occurs twice; make it unique")
        ids.add(str(task.get("id")))
        if not isinstance(data, dict):
            tasks.fail(n, f"data must be an object, not {short_repr(data)}; export it again")
        candidates = _candidates(tasks, n, part)
        result = _last_result(tasks, n, candidates)
        if result is None:
            without_labels += 1
            continue
        several += len(candidates) > 1
        regions_of_task = _labelled_regions(tasks, n, result)
        left_out_here = [item for item in result if _tag(item) in NO_AREA]
        left_out.update(map(_tag, left_out_here))
        pages = _pages(data)
        for page, address in enumerate(pages):
            regions, other_items = (
                [item for item in items if len(pages) == 1 or item.get("item_index", 0) == page]
                for items in (regions_of_task, left_out_here)
            )
            where = f"{tasks.where}[{n}] (id {task.get('id')})" + (f" image {page}" if len(pages) > 1 else "")
            sizes = {_size(region, where) for region in regions}
            if len(sizes) > 1:
                tasks.fail(n, f"its regions are of {len(sizes)} sizes; expected one: fix it")
            objects = [(region["label"], None) for region in regions]
            frame_ids = [*_stated_frame(data), *frame_ids_of(address), *frame_ids_of(unquote(address))]
            read_regions = partial(_regions, regions, where)
            yield ImportedFrame(
                where,
                frame_ids,
                next(iter(sizes), None),
                objects,
                read_regions,
                [unquote(address)],
                left_out=bool(other_items),
            )
    if without_labels:
        say(f"{file}: {without_labels} of {len(content)} tasks have no {part}: they stay without labels")
    if several:
        say(
            f"{file}: {several} of {len(content)} tasks have several {part}: of each, the last marked as ground "
            "truth is used, else the last"
        )
    report_without_area(file, left_out)


def _candidates(tasks: Records, n: int, part: str) -> list[dict[str, Any]]:
    """Returns the annotations or predictions of a task that were not cancelled."""
    candidates = tasks.records[n].get(part) or []
    if not isinstance(candidates, list) or not all(isinstance(candidate, dict) for candidate in candidates):
        tasks.fail(n, f"{part} must be a list of objects, not {short_repr(candidates)}; export `JSON`")
    return [candidate for candidate in candidates if not candidate.get("was_cancelled")]


def _last_result(tasks: Records, n: int, kept: Sequence[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Returns the results of the annotation or prediction that counts, or None if there is none."""
    kept = [candidate for candidate in kept if candidate.get("ground_truth")] or kept
    if not kept:
        return None
    result = kept[-1].get("result")
    if not isinstance(result, list) or not all(isinstance(candidate, dict) for candidate in result):
        tasks.fail(n, f"result must be a list of objects, not {short_repr(result)}; export `JSON`")
    return list(result)


def _tag(item: Mapping[str, Any]) -> str:
    """Returns the kind of a region."""
    return str(item.get("type", "")).removesuffix("labels")


def _labelled_regions(tasks: Records, n: int, result: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the regions of a result that have an area, each with its ``label``.

    Label Studio writes shape and label as one item (`brushlabels`), or as two with the same id (`brush`,
    `labels`).
    """
    labels: dict[str, Any] = {}
    for item in result:
        value = item.get("value")
        for key, names in value.items() if isinstance(value, dict) else ():
            if key.endswith("labels"):
                labels[str(item.get("id"))] = names
    regions = []
    seen_ids: set[str] = set()
    for item in result:
        tag = _tag(item)
        value = item.get("value")
        if tag.startswith("video") or (tag == "vector" and isinstance(value, dict) and value.get("closed")):
            tasks.fail(n, f"has a {tag}, which is not supported; draw {', '.join(TAGS)} on images of the frames")
        if tag not in TAGS:
            continue
        if not isinstance(value, dict):
            tasks.fail(n, f"value of a region must be an object, not {short_repr(value)}; export `JSON`")
        names = labels.get(str(item.get("id")), [])
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
            tasks.fail(n, f"a region has the labels {short_repr(names)}; expected exactly one")
        if item.get("id") is not None and str(item["id"]) in seen_ids:
            tasks.fail(n, f"region {item['id']!r} occurs twice; make its id unique")
        seen_ids.add(str(item.get("id")))
        if item.get("image_rotation"):
            tasks.fail(n, "the image was rotated while it was labelled; label it without rotation")
        regions.append(item | {"tag": tag, "label": names[0]})
    return regions


def _size(region: Mapping[str, Any], where: str) -> Size:
    sides = [region.get(key) for key in ("original_height", "original_width")]
    if not all(type(side) is int for side in sides):
        raise MaskcastError(f"{where}: a region has no original_width and original_height; export it again")
    return checked_size(sides[0], sides[1], where)  # type: ignore[arg-type]


def _stated_frame(data: Mapping[str, Any]) -> list[FrameId]:
    """Returns clip and frame of a task that maskcast wrote; else an empty list."""
    is_stated = isinstance(data.get("clip"), str) and type(data.get("frame")) is int
    return [(data["clip"], data["frame"])] if is_stated else []


def _pages(data: Mapping[str, Any]) -> list[str]:
    """Returns the paths of a task's images: a list of several, else a single path.

    The single path is that in `image`, else the first text with the ending of an image.
    """
    paths = [_path(value) for value in (data.get("image"), *data.values()) if isinstance(value, str)]
    if image_paths := [path for path in paths if _is_image(path)]:
        return image_paths[:1]
    for value in data.values():
        if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
            pages = [_path(one) for one in value]
            if all(map(_is_image, pages)):
                return pages
    return paths[:1] or [""]


def _path(address: str) -> str:
    """Returns a URL without its query (a signature), or the path of a local file."""
    return address.partition("?")[0] if "://" in address else address.rpartition("?d=")[2]


def _is_image(path: str) -> bool:
    return PurePosixPath(unquote(path)).suffix.lower() in IMAGE_SUFFIXES


def _regions(regions: Sequence[Mapping[str, Any]], where: str, size: Size) -> Iterator[Region]:
    for n, region in enumerate(regions, 1):
        shape_name = f"{where}: region {n} ({region['tag']})"
        score = region.get("score")
        yield Region(
            region["label"], _mask(region, size, shape_name), None, score if isinstance(score, float) else None
        )


def _mask(region: Mapping[str, Any], size: Size, where: str) -> np.ndarray:
    """Returns the pixels of a region, (H, W) bool; coordinates of shapes are percentages of the frame size."""
    value = region["value"]
    if region["tag"] == "brush":
        if value.get("format") != "rle":
            raise MaskcastError(
                f"{where}: format must be rle, not {short_repr(value.get('format'))}; export it again"
            )
        return decode(value.get("rle"), size, where)
    if region["tag"] == "bitmask":
        return _bitmask(value.get("imageDataURL"), size, where)
    scale = np.array([size[1], size[0]]) / 100
    try:
        if region["tag"] == "polygon":
            return polygon((np.array(value["points"], np.float64).reshape(-1, 2) * scale).tolist(), size, where)
        x, y = np.array([value["x"], value["y"]], np.float64) * scale
        rotation = float(value.get("rotation", 0))
        if region["tag"] == "ellipse":
            radii = np.array([value["radiusX"], value["radiusY"]], np.float64) * scale
            return polygon(ellipse(x, y, radii[0], radii[1], rotation), size, where)
        width, height = np.array([value["width"], value["height"]], np.float64) * scale
        return polygon(rectangle(x, y, width, height, rotation, (x, y)), size, where)
    except (KeyError, TypeError, ValueError) as error:
        raise MaskcastError(f"{where}: its numbers cannot be read ({error!r}); export it again") from None


def _bitmask(url: object, size: Size, where: str) -> np.ndarray:
    """Returns the pixels, (H, W) bool, that are not transparent in a PNG given as a data URL."""
    if not isinstance(url, str) or not url.startswith(PNG):
        raise MaskcastError(f"{where}: imageDataURL must begin with {PNG}, not {short_repr(url)}; export it again")
    picture = decode_base64_image(url.removeprefix(PNG), "imageDataURL", where)
    mask_HW: np.ndarray = np.asarray(picture.convert("RGBA"))[..., 3] > 0
    if mask_HW.shape != size:
        actual, expected = ("x".join(map(str, shape[::-1])) for shape in (mask_HW.shape, size))
        raise MaskcastError(
            f"{where}: its bitmask is {actual}, the frame {expected} (width x height); export it again"
        )
    return mask_HW
