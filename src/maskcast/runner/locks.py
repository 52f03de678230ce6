"""Locks for writing outputs, an atomic exchange of paths, and temporary changes of a file."""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from maskcast.errors import MaskcastError
from maskcast.stopping import stopped_by_signals

SUFFIX = ".partial.lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # errors of file systems without locks
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # from fcntl.h and stdio.h
_held: set[int] = set()  # file descriptors of locks


@contextmanager
def sole_writer(path: Path, *, waits: bool = False) -> Iterator[None]:
    """A context that holds the lock of an output, ``<path>.partial.lock``.

    The system releases the lock whenever the process ends, so that nothing has to be removed by hand.

    Args:
        path: of the output.
        waits: whether to wait while another process holds the lock.

    Raises:
        MaskcastError: another process holds it and ``waits`` is false; the message has its id, host and start.
    """
    place = path.with_name(path.name + SUFFIX)
    lock = _taken(place, waits)
    try:
        if lock is not None:
            _held.add(lock)
        yield
    finally:
        if lock is not None:
            _held.discard(lock)
            place.unlink(missing_ok=True)  # removed while held; processes that wait notice that
            os.close(lock)


def _let_go() -> None:
    """Closes the locks in a forked process, which writes no outputs and may outlive this one."""
    for lock in _held:
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def changed_for_a_while(path: Path) -> Iterator[str]:
    """A context in which a file may be changed; it yields the text, and restores the file at the end.

    Raises:
        MaskcastError: another process has changed it, or a killed one has not restored it.
    """
    kept = path.with_name(path.name + ".kept")
    with sole_writer(path), stopped_by_signals():
        if kept.exists():
            raise MaskcastError(
                f"{path}: was changed by a run that was killed; {kept.name} is what it was: rename that to "
                f"{path.name}, or remove it to go on from what is there"
            )
        partial = kept.with_name(kept.name + ".partial")
        shutil.copyfile(path, partial)
        partial.rename(kept)
        try:
            yield path.read_text(encoding="utf-8")
        finally:
            kept.replace(path)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges two paths atomically; returns False if the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def _taken(place: Path, waits: bool) -> int | None:
    """Returns the descriptor that holds the lock, or None if the file system has no locks."""
    while True:
        lock, mine = _opened(place)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise MaskcastError(_told(place)) from None
        except OSError as error:
            os.close(lock)
            if error.errno in NO_LOCKS:
                place.unlink(missing_ok=True)
                return None
            raise
        here = _is_at(lock, place)  # else the holder has ended and removed it
        if here and not mine:  # left by a killed process of another user
            place.unlink()
        elif here:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
            os.ftruncate(lock, 0)
            os.write(lock, json.dumps(holder).encode())
            return lock
        os.close(lock)


def _opened(place: Path) -> tuple[int, bool]:
    """Opens a lock file; returns whether it is writable, as another user's may be read-only."""
    try:
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), True
    except PermissionError:
        if not place.exists():  # the folder is not writable
            raise
        return os.open(place, os.O_RDONLY | os.O_CLOEXEC), False


def _is_at(lock: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), place.stat())
    except FileNotFoundError:
        return False


def _told(place: Path) -> str:
    """Returns the error message for other processes."""
    out = place.with_name(place.name.removesuffix(SUFFIX))
    try:
        holder = json.loads(place.read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']} has been writing it since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process is writing it"
    return f"{out}: {who}; wait for it, end it, or write elsewhere"
