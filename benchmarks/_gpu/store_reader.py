"""The clip store against PNG files, on one core of the CPU; `benchmarks/reader.py` is the same by itself."""

from collections.abc import Callable, Iterator

from _gpu.table import Row
from reader import compare


def rows(toy: bool) -> Iterator[Callable[[], Row]]:
    """Yields functions that each return the row of a reader."""
    for what, rate, times in compare(1 if toy else 5, 1 if toy else 20):
        row = Row("reader", what, "clip store, one core", unit="frames", per_s=rate, plain=times)
        row.note = "plain: PNG files by PIL"
        yield lambda row=row: row  # type: ignore[misc]
