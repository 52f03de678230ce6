"""The records of one list of a COCO file as checked columns; a fault names file, place and id.

Legend: N records; a column is checked as one array, a Python loop runs only to name a fault.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from maskcast.errors import MaskcastError


@dataclass(frozen=True)
class Records:
    """A list of JSON objects.

    Args:
        where: What a line calls the list, e.g. `gt.json: annotations`.
        records: N parsed JSON values, objects if the file is sound.
    """

    where: str
    records: Sequence[Any]

    def fail(self, n: int, text: str) -> NoReturn:
        """Raises a MaskcastError about record `n`."""
        one = self.records[n]
        known = f" (id {one['id']})" if isinstance(one, dict) and "id" in one else ""
        raise MaskcastError(f"{self.where}[{n}]{known}: {text}")

    def column(self, key: str, remedy: str) -> list[Any]:
        """Returns the values of a key that every record must have."""
        try:
            return [one[key] for one in self.records]
        except (KeyError, TypeError):
            for n, one in enumerate(self.records):
                if not isinstance(one, dict):
                    self.fail(n, f"must be an object, not {_shown(one)}; write it again")
                if key not in one:
                    self.fail(n, f"lacks {key!r} (it has {', '.join(one) or 'no keys'}); {remedy}")
            raise

    def integers(self, key: str) -> np.ndarray:
        """Returns a column of integers, (N,) int64."""
        values = self.column(key, "add it")
        column_N = _array(values)
        if values and column_N.dtype != np.int64:
            n = next(n for n, one in enumerate(values) if type(one) is not int or abs(one) >= 2**63)
            self.fail(n, f"{key} must be an integer, not {_shown(values[n])}; mend it")
        return column_N.astype(np.int64)

    def numbers(self, key: str, remedy: str, least: float = -np.inf) -> np.ndarray:
        """Returns a column of finite numbers that are at least `least`, (N,) float64."""
        values = self.column(key, remedy)
        column_N = _array(values)
        if column_N.dtype.kind not in "iuf" or column_N.ndim != 1:
            n = next(n for n, one in enumerate(values) if not _is_number(one))
            self.fail(n, f"{key} must be a number, not {_shown(values[n])}; {remedy}")
        self.refuse(
            np.logical_or(~np.isfinite(column_N), column_N < least), key, f"must be finite{_at_least(least)}"
        )
        return column_N.astype(np.float64)

    def boxes(self, remedy: str) -> np.ndarray:
        """Returns the column `bbox`: x, y, width, height, (N, 4) float64, finite, sizes not negative."""
        values = self.column("bbox", remedy)
        boxes_N4 = _array(values)
        if values and (boxes_N4.dtype.kind not in "iuf" or boxes_N4.shape != (len(values), 4)):
            n = next(n for n, one in enumerate(values) if not _is_box(one))
            self.fail(n, f"bbox must be 4 numbers [x, y, width, height], not {_shown(values[n])}; mend it")
        boxes_N4 = boxes_N4.reshape(-1, 4).astype(np.float64)
        self.refuse(~np.isfinite(boxes_N4).all(axis=1), "bbox", "must be finite")
        self.refuse((boxes_N4[:, 2:] < 0).any(axis=1), "bbox", "must have a width and height of at least 0")
        return boxes_N4

    def refuse(self, wrong_N: np.ndarray, key: str, rule: str) -> None:
        """Fails at the first record that is marked, e.g. with `id 7 stands twice`."""
        if wrong_N.any():
            n = int(wrong_N.argmax())
            self.fail(n, f"{key} {rule}, not {_shown(self.records[n].get(key))}; mend it")

    def unique(self, key: str) -> np.ndarray:
        """Returns a column of integers of which none stands twice, (N,) int64."""
        ids_N = self.integers(key)
        order_N = ids_N.argsort(kind="stable")
        again_N = order_N[1:][ids_N[order_N[1:]] == ids_N[order_N[:-1]]]
        if again_N.size:
            n = int(again_N.min())
            self.fail(n, f"{key} {ids_N[n]} stands twice; give each its own")
        return ids_N

    def known(self, key: str, ids: np.ndarray, what: str) -> np.ndarray:
        """Returns a column of integers that are all among `ids`, (N,) int64."""
        column_N = self.integers(key)
        strange_N = ~np.isin(column_N, ids)
        if strange_N.any():
            n, count = int(strange_N.argmax()), int(strange_N.sum())
            self.fail(n, f"{key} {column_N[n]} is no {what} ({count} of {len(column_N)} such); {_range(ids)}")
        return column_N


def _array(values: list[Any]) -> np.ndarray:
    """Returns values as an array; of dtype object where they are of different shapes or too large."""
    try:
        return np.array(values)
    except (ValueError, OverflowError):
        return np.array([None])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_box(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value))


def _at_least(least: float) -> str:
    return "" if least == -np.inf else f" and at least {least:g}"


def _range(ids: np.ndarray) -> str:
    if not ids.size:
        return "there are none"
    return f"there are {ids.size}, {ids.min()} to {ids.max()}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
