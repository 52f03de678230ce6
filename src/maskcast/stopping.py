"""Ctrl-C, SIGTERM and SIGHUP: an exception stops the work, cleans up, and one line says how to continue.

On SIGTERM, SIGHUP, SIGUSR1 or at its time limit, a training first completes its step and writes a checkpoint.
SIGHUP is what a closed terminal or connection sends. `nohup` ignores it, and so do the commands that it runs.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from maskcast.redaction import redacted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PAUSE_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)  # signals that stop a training after its step
EXIT_PAUSED = 75  # EX_TEMPFAIL of sysexits.h: job scripts run the same command again, which resumes
RESUME_HINT = ": run the same command again to resume from the last checkpoint"


class Stopped(KeyboardInterrupt):
    """This process was asked to stop; its notes complete the message "stopped" with position and remedy.

    Args:
        number: number of the signal.
    """

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(signal.Signals(number).name)
        self.number, self.code = number, 128 + number


def without_nohup(signals: Sequence[signal.Signals]) -> list[signal.Signals]:
    """Returns the signals to handle: SIGHUP is left out if `nohup` lets this process ignore it."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [number for number in signals if number != signal.SIGHUP or not ignored]


class Paused(Stopped):
    """A training stopped after a step and left a checkpoint; the exit code is ``EXIT_PAUSED``."""

    def __init__(self) -> None:
        super().__init__(signal.SIGTERM)
        self.code = EXIT_PAUSED


class _Stop:
    """Signal handler that stops this process."""

    raised: Stopped | None = None

    def __call__(self, number: int, _: Any) -> None:
        # Python functions, because with SIG_IGN or SIG_DFL Python reports an error for a signal that is already
        # pending.
        for further in without_nohup(STOP_SIGNALS):
            signal.signal(further, terminate_now if further == signal.SIGINT else _do_nothing)
        self.raised = Stopped(number)
        raise self.raised


@contextmanager
def raise_on_signals() -> Iterator[bool]:
    """Makes Ctrl-C, SIGTERM and SIGHUP raise ``Stopped`` in the block; yields whether it has set these handlers.

    Existing handlers of other code, and those of an interactive interpreter, stay. Only the first signal raises: a
    second Ctrl-C ends the process at once, further SIGTERM and SIGHUP are ignored.
    """
    interactive = hasattr(sys, "ps1") or "ipykernel" in sys.modules
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    unset = (signal.SIG_DFL, signal.default_int_handler)
    ours = {} if interactive else {number: handler for number, handler in handlers.items() if handler in unset}
    if not ours or threading.current_thread() is not threading.main_thread():
        yield False
        return

    stop = _Stop()
    for number in ours:
        signal.signal(number, stop)
    try:
        yield True
    except Exception as error:
        if stop.raised is not None:  # a library has wrapped it in its own error, as pydantic does
            raise stop.raised from error
        raise
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
        stop.raised = None  # its traceback refers to this frame, and the cycle would keep objects alive


@contextmanager
def add_stop_location(where: Callable[[], str]) -> Iterator[None]:
    """Adds a text to the message about a stop in the block, e.g. `` at epoch 3 of 5``."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note(where())
        raise


@contextmanager
def pause_on_signals(limit_s: float | None) -> Iterator[Callable[[], bool]]:
    """Makes ``PAUSE_SIGNALS`` request the end of the block; yields a function that returns whether they did.

    Existing handlers of other code stay. Further signals have no effect.

    Args:
        limit_s: seconds after which the end counts as requested.
    """
    end = time.monotonic() + limit_s if limit_s is not None else None
    requested: list[int] = []
    before = {number: signal.getsignal(number) for number in without_nohup(PAUSE_SIGNALS)}
    main = threading.current_thread() is threading.main_thread()
    free = (signal.SIG_DFL, signal.SIG_IGN)  # a job script ignores the signals that it forwards
    ours = [n for n, handler in before.items() if main and (handler in free or isinstance(handler, _Stop))]
    for number in ours:
        signal.signal(number, lambda number, _: requested.append(number))
    try:
        yield lambda: bool(requested) or (end is not None and time.monotonic() >= end)
    finally:
        for number in ours:
            handler = before[number]
            done = isinstance(handler, _Stop) and (requested or handler.raised is not None)
            signal.signal(number, _do_nothing if done else handler)


@contextmanager
def ctrl_c_requests_stop() -> Iterator[Callable[[], bool]]:
    """Makes the first Ctrl-C request the end of the block; a second one stops it.

    Yields:
        A function that returns whether the end was requested.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before, requested = signal.getsignal(signal.SIGINT), []

    def request(*_: Any) -> None:
        requested.append(True)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, request)
    try:
        yield lambda: bool(requested)
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def children_ignore_terminal() -> Iterator[None]:
    """Makes processes that the block starts ignore Ctrl-C and SIGHUP, because their parent ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def exit_with_parent() -> None:
    """Makes a process that ``multiprocessing`` started end with its parent, however that ends.

    The workers of a pool would wait forever for the tasks of a killed parent.
    """
    import multiprocessing
    from multiprocessing.connection import wait  # slow imports, which commands would pay for

    parent = multiprocessing.parent_process()
    assert parent is not None

    def exit_then() -> None:
        wait([parent.sentinel])
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=exit_then, name="exit with parent", daemon=True).start()


def _do_nothing(*_: Any) -> None:
    """Ignores a signal after the first one."""


def terminate_now(number: int, _: Any) -> None:
    """Handles a signal by ending the process at once."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def report_stop(stop: KeyboardInterrupt) -> int:
    """Prints one line on where this process was stopped; returns its code: 128 + signal, or ``EXIT_PAUSED``."""
    line = "".join(["stopped", *getattr(stop, "__notes__", [])])
    if os.environ.get("RANK", "0") == "0":  # of processes started by torchrun, only the first prints
        with suppress(OSError):  # the reader may have closed the pipe
            print(redacted(line), file=sys.stderr, flush=True)
    return int(getattr(stop, "code", 128 + signal.SIGINT))
