"""Notes of a dry run, in which a stage is tried on a few clips and records its cost (see `maskcast dry-run`).

A process is in a dry run if ``MASKCAST_DRY_RUN_NOTES`` names a file; so are its child processes. Notes are lines
of JSON in that file.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

NOTES_FILE = "MASKCAST_DRY_RUN_NOTES"
CLIPS_PER_PART = 4  # number of clips of each part of a data set
MAX_STEPS = 50  # number of steps, if all are alike


class FullLoop(NamedTuple):
    """What the items of a loop are a sample of; from it the cost of the whole loop is estimated.

    Attributes:
        most: maximum number of items in the real run; None for no limit.
        splits: splits of the data set whose clips are the items; empty if counts are ``most`` items.
    """

    most: int | None = None
    splits: Sequence[str] = ()


def is_dry_run() -> bool:
    """Whether this process is part of a dry run."""
    return NOTES_FILE in os.environ


def write_note(**values: Any) -> None:
    """Writes values to the notes of a dry run; only in the first process, and only in a dry run."""
    if is_dry_run() and os.environ.get("RANK", "0") == "0":
        with Path(os.environ[NOTES_FILE]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


def first_of_each_part(items: Sequence[T], part_of: Callable[[T], str]) -> list[T]:
    """In a dry run, returns the first items of each part and notes all counts; otherwise returns all items.

    Args:
        items: items of a data set.
        part_of: returns the part of an item: its split, and whatever else makes a difference to stages.
    """
    if not is_dry_run():
        return list(items)
    counts: dict[str, int] = {}
    sample = []
    for item in items:
        part = part_of(item)
        counts[part] = counts.get(part, 0) + 1
        if counts[part] <= CLIPS_PER_PART:
            sample.append(item)
    write_note(parts=counts, order=[part_of(item) for item in sample])
    return sample


def limited_range(times: int) -> range:
    """Returns ``range(times)``; in a dry run, a range of only a few (see ``FullLoop``)."""
    return range(min(times, MAX_STEPS) if is_dry_run() else times)


def timed(items: Iterable[T], name: str, of: FullLoop | None = None) -> Iterator[T]:
    """Yields items, and records the seconds between the requests for consecutive items.

    Args:
        items: items of a loop.
        name: name of the loop.
        of: what the items are a sample of, if they are one.
    """
    seconds: list[float] = []
    yielded = 0
    requested_at = time.monotonic()
    try:
        for item in items:
            yielded += 1
            yield item
            seconds.append(time.monotonic() - requested_at)
            requested_at = time.monotonic()
    finally:
        if rest_s := time.monotonic() - requested_at:
            seconds.append(rest_s)  # the last item, if no further one is requested
        write_note(loop=name, seconds=seconds, **({} if of is None else {"items": yielded, **of._asdict()}))
