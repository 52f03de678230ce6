"""labelme: one JSON per image, with polygons, rectangles, circles and masks; reads X-AnyLabeling's files, too.

A mask is a PNG in base64, whose first pixel is at the first of its two points. Shapes with the same `group_id` are
one object. The image is named by its path relative to the file, or has the file's name. Neither the image nor the
copy that a file may contain is opened here.

Legend: H height, W width.
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import hypot
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from maskcast.data.coco.records import Records
from maskcast.data.images import Size
from maskcast.data.labelling.formats.base import Export, ImportedFrame, LabelFormat, Region, checked_size
from maskcast.data.labelling.formats.names import frame_ids_of, frame_name
from maskcast.data.labelling.formats.shapes import decode_base64_image, ellipse, polygon, rectangle
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import pluralize, read_json, short_repr

FOLDER = "labelme"
POLYGONS = ("polygon", "oriented_rectangle", "rotation")  # the last is of X-AnyLabeling
SHAPES = (*POLYGONS, "rectangle", "circle", "mask")
NO_AREA = ("point", "points", "line", "linestrip")  # reported, and left out


class Labelme(LabelFormat):
    """labelme's files."""

    name = "labelme"
    tool = "labelme"
    files = ("*.json",)

    def __init__(self) -> None:
        self._reported: set[str] = set()  # kinds without area that were reported: once, not for each file

    def write(self, folder: Path, export: Export) -> None:
        """Writes ``labelme/<name>_<frame>.json`` of a clip or video, which name the images in ``images``."""
        (folder / FOLDER).mkdir()
        for clip, t, regions in export.frames():
            image = PurePosixPath(frame_name(clip, t))
            height, width = export.sizes[clip]
            content: dict[str, Any] = {
                "version": "5.4.1",
                "flags": {},
                "shapes": [_shape(region) for region in regions if region.mask_HW.any()],
                "imagePath": f"../images/{image}",
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            }
            (folder / FOLDER / f"{image.stem}.json").write_text(json.dumps(content) + "\n", encoding="utf-8")

    def read_file(self, file: Path) -> Iterator[ImportedFrame]:
        """Yields the frame of a file (see `LabelFormat.read`)."""
        frame, without_area = _read(file)
        for kind in sorted(without_area - self._reported):
            say(f"{file}: shapes of kind {kind} have no area: they are left out, here and in other files")
        self._reported |= without_area
        yield frame


def _shape(region: Region) -> dict[str, Any]:
    """Returns a region as a shape of type mask."""
    rows, columns = (np.flatnonzero(region.mask_HW.any(axis)) for axis in (1, 0))
    top, bottom, left, right = (int(one) for one in (rows[0], rows[-1], columns[0], columns[-1]))
    png = io.BytesIO()
    Image.fromarray(region.mask_HW[top : bottom + 1, left : right + 1].astype(np.uint8)).save(png, "PNG")
    return {
        "label": region.class_name,
        "points": [[left, top], [right, bottom]],
        "group_id": region.instance,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(png.getvalue()).decode(),
    }


def _read(file: Path) -> tuple[ImportedFrame, set[str]]:
    """Returns the frame of a file, and the types of its shapes that have no area."""
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        raise MaskcastError(
            f"{file}: not a labelme file, which is an object with a list of shapes; remove other files"
        )
    image = content.get("imagePath")
    if not isinstance(image, str) or not image:
        raise MaskcastError(f"{file}: imagePath must be the path of its image, not {short_repr(image)}; fix it")
    image = image.replace("\\", "/")
    shapes = Records(f"{file}: shapes", content["shapes"])
    kept, without_area = [], set()
    for n, label in enumerate(shapes.texts("label", "give it the name of a class")):
        shape = shapes.records[n]
        kind = shape.get("shape_type") or "polygon"  # older files have no other type
        if kind in NO_AREA:
            without_area.add(kind)
        elif kind in SHAPES:
            checked_shape = {"label": label, "shape_type": kind, "where": f"{file}: shapes[{n}] ({kind})"}
            kept.append(checked_shape | {key: shape.get(key) for key in ("points", "group_id", "mask")})
        else:
            allowed = ", ".join(SHAPES + NO_AREA)
            shapes.fail(n, f"shape_type must be one of {allowed}, not {short_repr(kind)}; draw it again")
    objects = [(shape["label"], _group(shape)) for shape in kept]
    size = _size(content, str(file))
    names = [(file.parent / image).as_posix(), PurePosixPath(image).name, file.stem]
    read, left_out = partial(_regions, kept), bool(without_area)
    frame = ImportedFrame(str(file), frame_ids_of(image), size, objects, read, names, left_out=left_out)
    return frame, without_area


def _group(shape: Mapping[str, Any]) -> int | None:
    group: Any = shape["group_id"]
    if group is not None and (type(group) is not int or group < 0):
        raise MaskcastError(
            f"{shape['where']}: group_id must be null or an integer of at least 0, not {short_repr(group)}; fix it"
        )
    return group


def _size(content: Mapping[str, Any], where: str) -> Size | None:
    sides = [content.get(key) for key in ("imageHeight", "imageWidth")]
    if sides == [None, None]:  # missing in older files
        return None
    if not all(type(side) is int for side in sides):
        raise MaskcastError(
            f"{where}: imageHeight and imageWidth must be integers, not {short_repr(sides)}; fix them"
        )
    return checked_size(sides[0], sides[1], where)  # type: ignore[arg-type]


def _regions(shapes: Sequence[Mapping[str, Any]], size: Size) -> Iterator[Region]:
    for shape in shapes:
        yield Region(shape["label"], _mask(shape, size), _group(shape))


def _mask(shape: Mapping[str, Any], size: Size) -> np.ndarray:
    """Returns the pixels of a shape, (H, W) bool."""
    kind, where = shape["shape_type"], shape["where"]
    try:
        points = np.array(shape["points"], np.float64).reshape(-1, 2)
    except (TypeError, ValueError, OverflowError):
        raise MaskcastError(
            f"{where}: points must be [[x, y], ...], not {short_repr(shape['points'])}; fix it"
        ) from None
    if not np.isfinite(points).all():
        raise MaskcastError(f"{where}: points must be finite numbers; fix it")
    if kind == "mask":
        return _png_mask(shape["mask"], points, size, where)
    if kind in POLYGONS or (kind == "rectangle" and len(points) == 4):  # a rectangle of X-AnyLabeling
        return polygon(points.tolist(), size, where)
    if len(points) != 2:
        raise MaskcastError(f"{where}: has {pluralize(len(points), 'point')}, and needs 2; draw it again")
    (x, y), (other_x, other_y) = points.tolist()
    if kind == "circle":  # its centre, and a point on the circle
        radius = hypot(other_x - x, other_y - y)
        return polygon(ellipse(x, y, radius, radius, 0), size, where)
    left, top = min(x, other_x), min(y, other_y)
    return polygon(rectangle(left, top, abs(other_x - x), abs(other_y - y), 0, (left, top)), size, where)


def _png_mask(text: object, points: np.ndarray, size: Size, where: str) -> np.ndarray:
    """Returns the non-zero pixels of a mask's PNG, placed in the frame; they may extend beyond it."""
    patch = np.asarray(decode_base64_image(text, "mask", where))
    if patch.ndim != 2:
        raise MaskcastError(f"{where}: mask must be a PNG of one channel; save it again")
    if not len(points):
        raise MaskcastError(f"{where}: has no points; draw it again")
    left, top = (round(value) for value in points[0].tolist())
    if left + patch.shape[1] <= 0 or top + patch.shape[0] <= 0 or left >= size[1] or top >= size[0]:
        raise MaskcastError(f"{where}: its mask is outside the frame of {size[1]}x{size[0]}; fix it")
    mask_HW = np.zeros(size, bool)
    visible = patch[max(-top, 0) : size[0] - top, max(-left, 0) : size[1] - left]
    first_row, first_column = max(top, 0), max(left, 0)
    mask_HW[first_row : first_row + visible.shape[0], first_column : first_column + visible.shape[1]] = (
        visible != 0
    )
    return mask_HW
