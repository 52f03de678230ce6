"""A stage that is tried on a handful of clips, and what it notes of its work: see `maskcast dry-run`.

A process rehearses where ``MASKCAST_REHEARSAL`` names a file; all processes that it starts then do, too. Notes are
lines of JSON in that file.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

VARIABLE = "MASKCAST_REHEARSAL"
HANDFUL = 4  # of each part of a data set
FEW = 50  # of many steps that are all alike


class AllOf(NamedTuple):
    """What the items of a loop are some of; a rehearsal says what all of them take.

    Attributes:
        most: as many of them, at most; None: any number.
        splits: of the data set, whose clips they are; empty where there are as many as ``most``.
    """

    most: int | None = None
    splits: Sequence[str] = ()


def rehearsing() -> bool:
    """Whether this process tries a stage."""
    return VARIABLE in os.environ


def note(**values: Any) -> None:
    """Notes something of a stage that is tried; nothing elsewhere, and nothing in all but the first process."""
    if rehearsing() and os.environ.get("RANK", "0") == "0":
        with Path(os.environ[VARIABLE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def handful(items: Sequence[T], part_of: Callable[[T], str]) -> list[T]:
    """Returns the first items of each part, in order, and notes how many there are; all of them elsewhere.

    Args:
        items: of a data set.
        part_of: names the part that an item belongs to: its split, and what else stages tell apart.
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
    """Counts to ``times``, in a rehearsal to a few of them: see ``AllOf``."""
    return range(min(times, FEW) if rehearsing() else times)


def noted(items: Iterable[T], name: str, of: AllOf | None = None) -> Iterator[T]:
    """Yields items, and notes how many seconds went by until each of the next was asked for.

    Args:
        items: of a loop.
        name: of the loop.
        of: what the items are some of, where they stand for more.
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
            seconds.append(asked_again)  # the last one, of whoever does not ask once more
        note(loop=name, seconds=seconds, **({} if of is None else {"items": yielded, **of._asdict()}))
