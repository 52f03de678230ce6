"""A stage that is tried on a handful of clips, and what it notes of its work: see `maskcast dry-run`.

A process rehearses where ``MASKCAST_REHEARSAL`` names a file; all processes that it starts then do, too. Notes are
lines of JSON in that file.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

VARIABLE = "MASKCAST_REHEARSAL"
HANDFUL = 4  # of each part of a data set


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


def noted(items: Iterable[T], name: str) -> Iterator[T]:
    """Yields items, and notes how many seconds went by until each of the next was asked for."""
    seconds: list[float] = []
    asked = time.monotonic()
    try:
        for item in items:
            yield item
            seconds.append(time.monotonic() - asked)
            asked = time.monotonic()
    finally:
        if asked_again := time.monotonic() - asked:
            seconds.append(asked_again)  # the last one, of whoever does not ask once more
        note(loop=name, seconds=seconds)
