"""Rows of a check's results, and concurrent checks with a common time limit."""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from typing import Literal

from maskcast.errors import MaskcastError, one_line
from maskcast.report.tables import format_table

State = Literal["ok", "warning", "missing", "failed", "not checked"]
LIMIT_S = 30.0  # on a slow disk, imports take most of it
SLOW_SERVER = "check that its server is running and reachable"
SLOW_MACHINE = "the disk or processor is slow or busy: run it again"


@dataclass(frozen=True)
class CheckResult:
    """One result of a check.

    Attributes:
        check: name of the check.
        state: for this machine, `warning` means that something works with limitations, `missing` that runs fail
            without it. For a cluster, `failed` means that runs fail, `not checked` that it cannot be checked from
            here.
        found: the finding, or why it was not checked.
        remedy: what to do; empty if nothing.
    """

    check: str
    state: State
    found: str
    remedy: str = ""


Check = Callable[[], Iterator[CheckResult]]


class NotCheckedError(MaskcastError):
    """The reason why a check cannot be done from here."""


def run_checks(
    checks: Mapping[str, Check],
    limit_s: float = LIMIT_S,
    failed: State = "missing",
    local: Container[str] = (),
) -> list[CheckResult]:
    """Returns the rows of all checks, in order; a check that exceeds the time limit fails and is not waited for.

    Args:
        checks: checks by name, which their rows get if they end in an error.
        limit_s: limit for all checks together, in seconds.
        failed: state for a check that raised an error or timed out.
        local: names of the checks that wait for no server.
    """
    done: Queue[tuple[str, list[CheckResult]]] = Queue()
    for name, check in checks.items():
        Thread(
            target=lambda name=name, check=check: done.put((name, list(results_of(name, check, failed)))),
            daemon=True,
        ).start()
    results: dict[str, list[CheckResult]] = {}
    end = time.monotonic() + limit_s
    while len(results) < len(checks):
        try:
            name, rows = done.get(timeout=max(0.0, end - time.monotonic()))
        except Empty:
            break
        results[name] = rows
    for name in checks.keys() - results.keys():
        remedy = SLOW_MACHINE if name in local else SLOW_SERVER
        results[name] = [CheckResult(name, failed, f"no response in {limit_s:.0f} s", remedy)]
    return [row for name in checks for row in results[name]]


def results_of(name: str, check: Check, failed: State) -> Iterator[CheckResult]:
    """Yields the rows of a check; an error that ends it becomes the last row."""
    try:
        yield from check()
    except MaskcastError as error:
        yield error_result(name, "not checked" if isinstance(error, NotCheckedError) else failed, error)
    except Exception as error:  # a broken installation may raise anything; other checks continue
        yield CheckResult(name, failed, f"{type(error).__name__}: {one_line(error)[:300]}", "fix the cause")


def error_result(name: str, state: State, error: MaskcastError) -> CheckResult:
    """Returns the row for a check that raised an error; the remedy follows the first semicolon of its message."""
    found, _, remedy = one_line(error).partition("; ")
    return CheckResult(name, state, found, remedy)


def format_results(rows: Iterable[CheckResult]) -> str:
    """Returns the rows as a table for the terminal, with each remedy below the finding."""
    cells = [[row.state, row.check, f"{row.found}\n-> {row.remedy}" if row.remedy else row.found] for row in rows]
    return format_table(["state", "check", "found, and what to do"], cells)
