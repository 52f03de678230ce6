"""Output of a running stage: progress bars, messages, metrics, files and page sections.

``run_stage`` sets the listeners that receive them: MLflow and the run's page. Outside a stage there are none, so
that the same code can be called from a notebook or a test.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from maskcast.dry_run_notes import FullLoop, is_dry_run, timed
from maskcast.files import tree_files
from maskcast.redaction import redacted
from maskcast.stopping import add_stop_location

if TYPE_CHECKING:
    from maskcast.markup import Html

T = TypeVar("T")

LINE_EVERY_S = 15.0  # without a terminal (logs of a pod, DVC) a bar becomes an occasional line
SLOW_S = 10.0  # seconds before a message says what is done or waited for


class Listener(Protocol):
    """Receives what a stage reports."""

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Receives metrics, of a training step if given."""

    def file(self, path: Path, folder: str) -> None:
        """Receives a file to keep with the run."""

    def section(self, title: str, content: "Html") -> None:
        """Receives a section of the run's page."""


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("maskcast_listeners", default=())


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Sends everything that is reported inside the block to all ``listeners``."""
    token = _listeners.set(listeners)
    try:
        yield
    finally:
        _listeners.reset(token)


def report(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Reports metrics of the run, for a training step if ``step`` is given."""
    for listener in _listeners.get():
        listener.metrics(metrics, step)


def report_file(path: Path, folder: str = "") -> None:
    """Reports a file to keep with the run, in ``folder`` of its artifacts."""
    for listener in _listeners.get():
        listener.file(path, folder)


def report_folder(path: Path) -> None:
    """Reports all files of a folder, to keep with the run in folder ``report``."""
    for file in tree_files(path):
        report_file(file, (Path("report") / file.relative_to(path).parent).as_posix())


def report_section(title: str, content: "Html") -> None:
    """Adds a section to the run's page, rather than pictures and texts to the run's files."""
    for listener in _listeners.get():
        listener.section(title, content)


def say(message: str) -> None:
    """Prints one line for the user; of processes started by torchrun, only the first prints."""
    if is_main_process():
        print(redacted(message), file=sys.stderr, flush=True)


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Names the work of the block in a line, if it takes long, and in the message about a stop.

    Args:
        what: the work, e.g. `reading masks`.
    """
    with _say_if_slow(f"{what} ..."), add_stop_location(lambda: f" while {what}"):
        yield


@contextmanager
def log_if_slow(what: str) -> Iterator[None]:
    """Prints what the block waits for, if it takes long."""
    with _say_if_slow(f"waiting for {what}"):
        yield


@contextmanager
def _say_if_slow(message: str) -> Iterator[None]:
    timer = Timer(SLOW_S, say, (message,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def track(
    items: Iterable[T], description: str, total: int | None = None, of: FullLoop | None = None
) -> Iterator[T]:
    """Yields ``items`` and shows progress: a bar on a terminal that can redraw it, else a line every 15 s.

    Args:
        items: the items of work.
        description: name of the work.
        total: number of items, if they have no length.
        of: what they are a sample of in a dry run.
    """
    if is_dry_run():
        items = timed(items, description, of)
    if total is None and isinstance(items, Sized):
        total = len(items)
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal or not is_main_process():
        yield from _lines(items, description, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        _Rate(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=redacted(description))


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


def _lines(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    said = start = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - said > LINE_EVERY_S:
            said = time.monotonic()
            rate = f", {done / (said - start):.3g}/s" if done else ""  # the first item may take long
            left = f", {(total - done) * (said - start) / done:.0f} s left" if done and total else ""
            told = f"{said - start:.0f} s{rate}{left}"
            say(f"{description}: {done}{f'/{total}' if total else ''} ({told})")
        yield item


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
