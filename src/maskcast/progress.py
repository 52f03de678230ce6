"""What a running stage says: progress bars, lines, metrics, files and pages, without knowing who listens.

``run_stage`` sets listeners: MLflow and the run's page. Outside a stage they go nowhere,
so that the science can be called from a notebook or a test as it is.
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

from maskcast.redaction import redacted
from maskcast.rehearsal import AllOf, noted, rehearsing

if TYPE_CHECKING:
    from maskcast.markup import Html

T = TypeVar("T")

LINE_EVERY_S = 15.0  # off a terminal (logs of a pod, DVC) a bar becomes a line now and then
LATE_S = 10.0  # before it is said what a silence waits for


class Listener(Protocol):
    """Receives what a stage reports."""

    def metrics(self, values: Mapping[str, float], step: int | None) -> None:
        """Takes named numbers, at a training step or at none."""

    def file(self, path: Path, folder: str) -> None:
        """Takes a file worth keeping with the run."""

    def section(self, title: str, content: "Html") -> None:
        """Takes a part of the run's page."""


_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("maskcast_listeners", default=())


@contextmanager
def listening(*listeners: Listener) -> Iterator[None]:
    """Sends everything reported inside the block to each of ``listeners``."""
    token = _listeners.set(listeners)
    try:
        yield
    finally:
        _listeners.reset(token)


def report(metrics: Mapping[str, float], step: int | None = None) -> None:
    """Reports named numbers of the run (per training step where ``step`` is given)."""
    for listener in _listeners.get():
        listener.metrics(metrics, step)


def report_file(path: Path, folder: str = "") -> None:
    """Reports a picture or table to keep with the run, under ``folder`` of its artifacts."""
    for listener in _listeners.get():
        listener.file(path, folder)


def report_folder(path: Path, name: str) -> None:
    """Reports all files of a folder, to keep with the run in a folder of this name."""
    for file in sorted(each for each in path.rglob("*") if each.is_file()):
        report_file(file, (Path(name) / file.relative_to(path).parent).as_posix())


def show(title: str, content: "Html") -> None:
    """Shows a section on the run's page; in place of the pictures and texts among the run's files."""
    for listener in _listeners.get():
        listener.section(title, content)


def say(message: str) -> None:
    """Prints one line for the user; of the processes that torchrun starts the first one speaks."""
    if first_process():
        print(redacted(message), file=sys.stderr, flush=True)


@contextmanager
def told_when_late(what: str) -> Iterator[None]:
    """Says what the block waits for, where that takes a while."""
    timer = Timer(LATE_S, say, (f"waiting for {what}",))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def track(items: Iterable[T], description: str, total: int | None = None, of: AllOf | None = None) -> Iterator[T]:
    """Yields ``items`` while showing progress: a bar on a terminal, a line every 15 s elsewhere.

    Args:
        items: what the work is done on.
        description: names the work.
        total: how many there are, where they do not say so.
        of: what they are some of in a rehearsal.
    """
    if rehearsing():
        items = noted(items, description, of)
    if total is None and isinstance(items, Sized):
        total = len(items)
    console = Console(stderr=True)
    if not console.is_terminal or not first_process():
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
    """How many items are done in a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


def _lines(items: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    said = start = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - said > LINE_EVERY_S:
            said = time.monotonic()
            told = f"{said - start:.0f} s, {done / (said - start):.3g}/s"
            say(f"{description}: {done}{f'/{total}' if total else ''} ({told})")
        yield item


def first_process() -> bool:
    """Whether this process is alone or the first of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
