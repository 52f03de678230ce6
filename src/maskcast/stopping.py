"""Ctrl-C and SIGTERM: what runs is stopped by an exception, cleans up, and says in one line how to go on.

A training is let finish its step, and leaves a checkpoint of it, where SIGTERM, SIGUSR1 or its time limit ends it.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from maskcast.redaction import redacted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PAUSES = (signal.SIGTERM, signal.SIGUSR1)  # that end a training after its step
PAUSED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, and the same command goes on; job scripts run it again
AGAIN = ": run the same command again to go on from the last checkpoint"


class Stopped(KeyboardInterrupt):
    """Somebody has asked this process to end; its notes, which go on from "stopped", say where and what to do.

    Args:
        number: the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.code = number, 128 + number


class Paused(Stopped):
    """A training has ended after a step of which it left a checkpoint; the exit code is ``PAUSED``."""

    def __init__(self) -> None:
        super().__init__(signal.SIGTERM)
        self.code = PAUSED


class _Stop:
    """The handler of signals that stops this process."""

    raised: Stopped | None = None

    def __call__(self, number: int, _: Any) -> None:
        # Functions of Python, not SIG_IGN and SIG_DFL: it complains of a signal that is under way by then.
        signal.signal(signal.SIGTERM, _do_nothing)
        signal.signal(signal.SIGINT, end_at_once)
        self.raised = Stopped(number)
        raise self.raised


@contextmanager
def stopped_by_signals() -> Iterator[bool]:
    """Makes Ctrl-C and SIGTERM raise ``Stopped`` in the block, whose value is whether it is this that does so.

    Whoever has set a handler keeps it, and so does an interpreter that a person types into. The first signal
    counts: a second Ctrl-C ends the process at once, a second SIGTERM does nothing.
    """
    typed = hasattr(sys, "ps1") or "ipykernel" in sys.modules
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    unset = (signal.SIG_DFL, signal.default_int_handler)
    ours = {} if typed else {number: handler for number, handler in handlers.items() if handler in unset}
    if not ours or threading.current_thread() is not threading.main_thread():
        yield False
        return

    stop = _Stop()
    for number in ours:
        signal.signal(number, stop)
    try:
        yield True
    except Exception as error:
        if stop.raised is not None:  # within a library that makes an error of its own of it, as pydantic's core
            raise stop.raised from error
        raise
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        stop.raised = None  # whose traceback holds this frame: together they would keep what was open there


@contextmanager
def saying_where(where: Callable[[], str]) -> Iterator[None]:
    """Adds to what is said of a stop in the block where it came, e.g. `` at epoch 3 of 5``."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(where())
        raise


@contextmanager
def pausing(limit_s: float | None) -> Iterator[Callable[[], bool]]:
    """Lets SIGTERM and SIGUSR1 ask for the end of the block, which the value tells, instead of forcing it.

    Whoever has set a handler keeps it. What was asked for once is: a second signal does nothing.

    Args:
        limit_s: seconds after which the end is asked for anyway.
    """
    end = time.monotonic() + limit_s if limit_s is not None else None
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in PAUSES}
    main = threading.current_thread() is threading.main_thread()
    free = (signal.SIG_DFL, signal.SIG_IGN)  # a job script ignores what it passes on
    ours = [n for n in PAUSES if main and (before[n] in free or isinstance(before[n], _Stop))]
    for number in ours:
        signal.signal(number, lambda number, _: asked.append(number))
    try:
        yield lambda: bool(asked) or (end is not None and time.monotonic() >= end)
    finally:
        for number in ours:
            signal.signal(number, _do_nothing if asked and isinstance(before[number], _Stop) else before[number])


@contextmanager
def ctrl_c_asks() -> Iterator[Callable[[], bool]]:
    """Lets the first Ctrl-C in the block ask for its end, which the value tells; the second one stops it."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before, asked = signal.getsignal(signal.SIGINT), []

    def ask(*_: Any) -> None:
        asked.append(True)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def children_ignore_ctrl_c() -> Iterator[None]:
    """Lets processes that the block starts ignore Ctrl-C: the one that started them ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _do_nothing(*_: Any) -> None:
    """Handles a signal that has been heard already."""


def end_at_once(number: int, _: Any) -> None:
    """Handles a signal that ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def end_stopped(stop: KeyboardInterrupt) -> int:
    """Says in one line that this process was stopped, and where; returns its exit code: 130, 143 or ``PAUSED``."""
    line = "".join(["stopped", *getattr(stop, "__notes__", [])])
    if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun starts the first one speaks
        with suppress(OSError):  # who read the output may be gone
            print(redacted(line), file=sys.stderr, flush=True)
    return int(getattr(stop, "code", 128 + signal.SIGINT))
