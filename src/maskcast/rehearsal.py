"""Rehearsals: a stage is tried on a few clips and records its cost (see `maskcast dry-run`).

A process rehearses if ``MASKCAST_REHEARSAL`` names a file; so do its child processes. Notes are lines of JSON in
that file.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

VARIABLE = "MASKCAST_REHEARSAL"
HANDFUL = 4  # number of clips of each part of a data set
FEW = 50  # number of steps, if all are alike


class AllOf(NamedTuple):
    """What the items of a loop are a sample of; from it the cost of the whole loop is estimated.

    Attributes:
        most: maximum number of items in the real run; None for no limit.
        splits: splits of the data set whose clips are the items; empty if there are ``most`` items.
    """

    most: int | None = None
    splits: Sequence[str] = ()


def rehearsing() -> bool:
    """Whether this process runs a rehearsal."""
    return VARIABLE in os.environ


def note(**values: Any) -> None:
    """Records values of a rehearsal; only in the first process, and only in a rehearsal."""
    if rehearsing() and os.environ.get("RANK", "0") == "0":
        with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def handful(items: Sequence[T], part_of: Callable[[T], str]) -> list[T]:
    """In a rehearsal, returns the first items of each part and notes all counts; otherwise returns all items.

    Args:
        items: items of a data set.
        part_of: returns the part of an item: its split, and whatever else makes a difference to stages.
    """
    if not rehearsing():
        return list(items)
    there: dict[str, int] = {}
    taken = []
    for item in items:
        part = part_of(item)
        there[part] = there.get(part, 0) + 1
        if there[part] <= HANDFUL:
            taken.append(item)
    note(parts=there, order=[part_of(item) for item in taken])
    return taken


def few(times: int) -> range:
    """Returns ``range(times)``; in a rehearsal, a range of only a few (see ``AllOf``)."""
    return range(min(times, FEW) if rehearsing() else times)


def noted(items: Iterable[T], name: str, of: AllOf | None = None) -> Iterator[T]:
    """Yields items, and records the seconds between the requests for consecutive items.

    Args:
        items: items of a loop.
        name: name of the loop.
        of: what the items are a sample of, if they are one.
    """
    seconds: list[float] = []
    yielded = 0
    asked = time.monotonic()
    try:
        for item in items:
            yielded += 1
            yield item
            seconds.append(time.monotonic() - asked)
            asked = time.monotonic()
    finally:
        if asked_again := time.monotonic() - asked:
            seconds.append(asked_again)  # the last item, if no further one is requested
        note(loop=name, seconds=seconds, **({} if of is None else {"items": yielded, **of._asdict()}))
