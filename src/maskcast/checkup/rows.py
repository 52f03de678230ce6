"""What a check found, and many checks at once of which none may take long."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Literal

from maskcast.errors import MaskcastError, one_line

State = Literal["ok", "warning", "missing"]
LIMIT_S = 30.0  # importing what is asked takes most of it, on a slow disk


@dataclass(frozen=True)
class Row:
    """What one check found.

    Attributes:
        state: `warning` is what works with less, `missing` what a run fails without.
        check: its name.
        found: what there is.
        remedy: how to get what there is not; empty where there is nothing to do.
    """

    state: State
    check: str
    found: str
    remedy: str = ""


Check = Callable[[], Iterator[Row]]


def side_by_side(checks: Mapping[str, Check], limit_s: float = LIMIT_S) -> list[Row]:
    """Returns the rows of all checks, in order; one that is late is missing, and nobody waits for it.

    Args:
        checks: by the name that their rows have where they end in an error.
        limit_s: for all of them, seconds.
    """
    done: Queue[tuple[str, list[Row]]] = Queue()
    for name, check in checks.items():
        Thread(target=lambda name=name, check=check: done.put((name, _rows(name, check))), daemon=True).start()
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
        for row in found.get(name, [Row("missing", name, late, "see that what it asks is up and can be reached")])
    ]


def _rows(name: str, check: Check) -> list[Row]:
    rows: list[Row] = []
    try:
        rows += check()
    except MaskcastError as error:
        found, _, remedy = one_line(error).partition("; ")
        rows.append(Row("missing", name, found, remedy))
    except Exception as error:  # whatever a broken installation raises: the other checks go on
        rows.append(Row("missing", name, f"{type(error).__name__}: {one_line(error)[:300]}", "mend that"))
    return rows
