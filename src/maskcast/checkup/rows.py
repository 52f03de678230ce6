"""What a check found, and many checks at once of which none may take long."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Literal

from maskcast.errors import MaskcastError, one_line
from maskcast.report.tables import printed

State = Literal["ok", "warning", "missing", "failed", "not checked"]
LIMIT_S = 30.0  # importing what is asked takes most of it, on a slow disk


@dataclass(frozen=True)
class Row:
    """What one check found.

    Attributes:
        check: its name.
        state: of this machine `warning` is what works with less, `missing` what a run fails without; of a cluster
            `failed` is that, and `not checked` what cannot be looked at from here.
        found: what there is, or why it was not looked at.
        remedy: how to get what there is not; empty where there is nothing to do.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


Check = Callable[[], Iterator[Row]]


class NotCheckedError(MaskcastError):
    """Why a check cannot be done from here."""


def side_by_side(checks: Mapping[str, Check], limit_s: float = LIMIT_S, failed: State = "missing") -> list[Row]:
    """Returns the rows of all checks, in order; one that is late has failed, and nobody waits for it.

    Args:
        checks: by the name that their rows have where they end in an error.
        limit_s: for all of them, seconds.
        failed: what is said of a check that an error ended, or that is late.
    """
    done: Queue[tuple[str, list[Row]]] = Queue()
    for name, check in checks.items():
        Thread(
            target=lambda name=name, check=check: done.put((name, list(rows_of(name, check, failed)))), daemon=True
        ).start()
    found: dict[str, list[Row]] = {}
    end = time.monotonic() + limit_s
    while len(found) < len(checks):
        try:
            name, rows = done.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        found[name] = rows
    late = f"no answer in {limit_s:.0f} s"
    return [
        row
        for name in checks
        for row in found.get(name, [Row(name, failed, late, "see that what it asks is up and can be reached")])
    ]


def rows_of(name: str, check: Check, failed: State) -> Iterator[Row]:
    """Yields the rows of a check; an error that ends it becomes its last row."""
    try:
        yield from check()
    except MaskcastError as error:
        yield row_of(name, "not checked" if isinstance(error, NotCheckedError) else failed, error)
    except Exception as error:  # whatever a broken installation raises: the other checks go on
        yield Row(name, failed, f"{type(error).__name__}: {one_line(error)[:300]}", "mend that")


def row_of(name: str, state: State, error: MaskcastError) -> Row:
    """Returns the row of a check that an error ended; what to do stands after its first semicolon."""
    found, _, remedy = one_line(error).partition("; ")
    return Row(name, state, found, remedy)


def drawn(rows: Iterable[Row]) -> str:
    """Returns the rows as a table for the terminal, what to do below what was found."""
    cells = [[row.state, row.check, f"{row.found}\n-> {row.remedy}" if row.remedy else row.found] for row in rows]
    return printed(["state", "check", "found, and what to do"], cells)
