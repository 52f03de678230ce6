"""Records of a list in a COCO file as checked columns; errors name file, index and id.

Legend: N records. A column is checked as one array; a Python loop only runs to find the faulty record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import unquote

import numpy as np
from numpy.typing import ArrayLike

from maskcast.errors import MaskcastError
from maskcast.reading import read_json, short_repr

LEAST_BOXES = 8  # fewer do not show whether they are corners
MAX_COORDINATE = 1e9  # limit for boxes in pixels; products of larger numbers overflow


@dataclass(frozen=True)
class Records:
    """A list of JSON objects.

    Args:
        where: Name of the list in errors, e.g. `gt.json: annotations`.
        records: N parsed JSON values; objects if the file is valid.
    """

    where: str
    records: Sequence[Any]

    def fail(self, n: int, message: str) -> NoReturn:
        """Raises a MaskcastError about record `n`."""
        record = self.records[n]
        record_id = f" (id {record['id']})" if isinstance(record, dict) and "id" in record else ""
        raise MaskcastError(f"{self.where}[{n}]{record_id}: {message}")

    def column(self, key: str, remedy: str = "add it") -> list[Any]:
        """Returns the values of a required key."""
        try:
            return [record[key] for record in self.records]
        except (KeyError, TypeError):
            for n, record in enumerate(self.records):
                if not isinstance(record, dict):
                    self.fail(n, f"must be an object, not {short_repr(record)}; fix it")
                if key not in record:
                    self.fail(n, f"missing key {key!r} (found: {', '.join(record) or 'no keys'}); {remedy}")
            raise

    def integers(self, key: str) -> np.ndarray:
        """Returns a column of integers, (N,) int64."""
        values = self.column(key)
        column_N = _array(values)
        if values and (column_N.dtype != np.int64 or column_N.ndim != 1):
            n = next(n for n, value in enumerate(values) if type(value) is not int or abs(value) >= 2**63)
            self.fail(n, f"{key} must be an integer, not {short_repr(values[n])}; fix it")
        return column_N.astype(np.int64)

    def rows_of(self, ids_N: np.ndarray) -> np.ndarray:
        """Returns the index of the record with each id, (N,) int64; all ids must occur."""
        ids_I = self.integers("id")
        order_I = ids_I.argsort()
        rows_N: np.ndarray = order_I[np.searchsorted(ids_I, ids_N, sorter=order_I)]
        return rows_N

    def numbers(self, key: str, remedy: str, minimum: float = -np.inf) -> np.ndarray:
        """Returns a column of finite numbers >= `minimum`, (N,) float64."""
        values = self.column(key, remedy)
        column_N = _array(values)
        if column_N.dtype.kind not in "iuf" or column_N.ndim != 1:
            n = next(n for n, value in enumerate(values) if not _is_number(value))
            self.fail(n, f"{key} must be a number, not {short_repr(values[n])}; {remedy}")
        rule = "must be finite" if minimum == -np.inf else f"must be finite and at least {minimum:g}"
        self.refuse(np.logical_or(~np.isfinite(column_N), column_N < minimum), key, rule)
        return column_N.astype(np.float64)

    def boxes(self) -> np.ndarray:
        """Returns the column `bbox`: x, y, width, height, (N, 4) float64, finite and below `MAX_COORDINATE`."""
        values = self.column("bbox")
        boxes_N4 = _array(values)
        if values and (boxes_N4.dtype.kind not in "iuf" or boxes_N4.shape != (len(values), 4)):
            n = next(n for n, value in enumerate(values) if not _is_box(value))
            self.fail(n, f"bbox must be 4 numbers [x, y, width, height], not {short_repr(values[n])}; fix it")
        boxes_N4 = boxes_N4.reshape(-1, 4).astype(np.float64)
        invalid_N = ~(np.abs(boxes_N4) < MAX_COORDINATE).all(axis=1)
        self.refuse(invalid_N, "bbox", f"must be finite and below {MAX_COORDINATE:g} pixels")
        return boxes_N4

    def refuse_corners(self, boxes_N4: np.ndarray, sizes_N2: np.ndarray) -> None:
        """Fails if most boxes leave their images as x, y, width, height, but none does as x1, y1, x2, y2.

        Args:
            boxes_N4: The boxes as in the file.
            sizes_N2: Height and width of each one's image; 0 if unknown.
        """
        known_N = (sizes_N2 > 0).all(axis=1)
        boxes_N4, limits_N2 = boxes_N4[known_N], sizes_N2[known_N][:, ::-1] + 1  # 1: rounded boxes
        outside_N = (boxes_N4[:, :2] + boxes_N4[:, 2:] > limits_N2).any(axis=1)
        corners_N = ((boxes_N4[:, 2:] > boxes_N4[:, :2]) & (boxes_N4[:, 2:] <= limits_N2)).all(axis=1)
        if len(boxes_N4) >= LEAST_BOXES and outside_N.mean() > 0.5 and corners_N.all():
            self.fail(
                int(np.flatnonzero(known_N)[outside_N.argmax()]),
                f"bbox must be [x, y, width, height]: {outside_N.sum()} of {len(boxes_N4)} boxes leave "
                "their image, and none as [x1, y1, x2, y2]; convert them",
            )

    def texts(self, key: str, remedy: str) -> list[str]:
        """Returns a column of strings."""
        values = self.column(key, remedy)
        for n, value in enumerate(values):
            if not isinstance(value, str):
                self.fail(n, f"{key} must be a string, not {short_repr(value)}; {remedy}")
        return values

    def find_image(self, n: int, folder: Path) -> str:
        """Returns the path of image `n` below its folder: of the forms of its `file_name` the first that exists.

        Fails if the name leads out of the folder.
        """
        name = self.records[n]["file_name"]
        paths = [one.replace("\\", "/") for one in name_forms(name)] if isinstance(name, str) else [""]
        if not all(map(_is_below, paths)):
            self.fail(n, f"file_name must be a relative path, not {name!r}; fix it")
        others = paths[1:]  # few names have any, and a look at each file of a large set takes long
        return next((path for path in paths if others and (folder / path).is_file()), paths[0])

    def refuse(self, invalid_N: ArrayLike, key: str, rule: str) -> None:
        """Fails for the first marked record, e.g. with the rule `must be finite`."""
        if np.any(invalid_N):
            n = int(np.argmax(invalid_N))
            self.fail(n, f"{key} {rule}, not {short_repr(self.records[n].get(key))}; fix it")

    def unique(self, key: str) -> np.ndarray:
        """Returns a column of distinct integers, (N,) int64."""
        ids_N = self.integers(key)
        order_N = ids_N.argsort(kind="stable")
        duplicates_N = order_N[1:][ids_N[order_N[1:]] == ids_N[order_N[:-1]]]
        if duplicates_N.size:
            n = int(duplicates_N.min())
            self.fail(n, f"{key} {ids_N[n]} occurs twice; make it unique")
        return ids_N

    def known(self, key: str, ids: np.ndarray, what: str) -> np.ndarray:
        """Returns a column of integers that are all in `ids`, (N,) int64."""
        column_N = self.integers(key)
        unknown_N = ~np.isin(column_N, ids)
        if unknown_N.any():
            n, count = int(unknown_N.argmax()), int(unknown_N.sum())
            self.fail(
                n, f"{key} {column_N[n]} is not the id of {what} ({count} of {len(column_N)}); {_id_range(ids)}"
            )
        return column_N


def name_forms(name: str) -> list[str]:
    """Returns what a `file_name` may mean, likeliest first: itself, and the text that tools percent-encode."""
    return list(dict.fromkeys([name, unquote(name)]))


def read_lists(path: Path) -> tuple[Records, Records, Records]:
    """Reads images, categories and annotations of a ground-truth file, and checks that their ids match.

    Raises:
        MaskcastError: A list or an id is missing, an id occurs twice, or an id refers to nothing.
    """
    return parse_lists(read_json(path), path)


def parse_lists(content: Any, path: Path) -> tuple[Records, Records, Records]:
    """Returns the lists of a parsed file (see `read_lists`)."""
    if not isinstance(content, dict):
        raise MaskcastError(
            f"{path}: must be an object with images, categories and annotations, not "
            f"{'a list; give results as the second file' if isinstance(content, list) else short_repr(content)}"
        )
    lists = []
    for key in ("images", "categories", "annotations"):
        if key in content and not isinstance(content[key], list):
            raise MaskcastError(f"{path}: {key} must be a list, not {short_repr(content[key])}; fix it")
        if key not in content:
            found = ", ".join(content) or "nothing"
            raise MaskcastError(f"{path}: missing list {key!r} (found: {found}); add it")
        if not content[key] and key != "annotations":
            raise MaskcastError(f"{path}: {key} is empty; use a ground truth that has {key}")
        lists.append(Records(f"{path}: {key}", content[key]))
    images, categories, annotations = lists
    image_ids, category_ids = images.unique("id"), categories.unique("id")
    categories.column("name")
    annotations.unique("id")
    annotations.known("image_id", image_ids, f"an image of {path}")
    annotations.known("category_id", category_ids, f"a category of {path}")
    crowds = [annotation.get("iscrowd") in (None, 0, 1) for annotation in annotations.records]
    annotations.refuse(np.logical_not(crowds), "iscrowd", "must be 0 or 1")
    return images, categories, annotations


def category_names(categories: Records) -> dict[int, str]:
    """Returns the category names by id.

    Names must be distinct, except that a supercategory may be listed as a category, too: Roboflow lists the
    project, which may have the name of its only class.

    Raises:
        MaskcastError: a name is not a text, or two categories have the same name.
    """
    names: dict[int, str] = {}
    parents: dict[str, Any] = {}
    for n, (category_id, name) in enumerate(
        zip(categories.unique("id").tolist(), categories.column("name"), strict=True)
    ):
        if not isinstance(name, str | int) or isinstance(name, bool) or not str(name).strip():
            categories.fail(n, f"name must be a string, not {short_repr(name)}; fix it")
        text, parent = str(name), categories.records[n].get("supercategory")
        if text in parents and text not in (parent, parents[text]):
            categories.fail(n, f"name {name!r} occurs twice; make it unique")
        names[category_id] = text
        parents[text] = parent
    return names


def _is_below(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts


def _array(values: list[Any]) -> np.ndarray:
    """Returns values as an array; of dtype object if shapes differ, numbers are too large, or some are bool."""
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        return np.array([None])
    flat = chain.from_iterable(values) if array.ndim == 2 else values
    return np.array([None]) if bool in set(map(type, flat)) else array  # beside numbers, numpy counts true as 1


def _is_number(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    return whole or isinstance(value, float)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _id_range(ids: np.ndarray) -> str:
    if not ids.size:
        return "the file has none"
    return f"expected one of {ids.size} ids, {ids.min()} to {ids.max()}"
