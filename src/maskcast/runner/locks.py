"""Who writes a file: one process at a time, of which the others are told; a swap without a gap, and a way back."""

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
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # what file systems without locks answer
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of fcntl.h and stdio.h
_held: set[int] = set()  # descriptors of locks


@contextmanager
def sole_writer(path: Path, *, waits: bool = False) -> Iterator[None]:
    """Holds the lock of an output, ``<path>.partial.lock``, while the block writes it.

    The system lets go of it when the process ends, however that happens: nothing is left to be removed by hand.

    Args:
        path: of the output.
        waits: for another process that holds it.

    Raises:
        MaskcastError: another process holds it, with its number, its host and since when, and this one does not
            wait.
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
            place.unlink(missing_ok=True)  # while it is held: whoever waits sees that it is another file's
            os.close(lock)


def _let_go() -> None:
    """Closes the locks in a process that was forked from this one: it writes no output, and may outlive this."""
    for lock in _held:
        os.close(lock)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def changed_for_a_while(path: Path) -> Iterator[str]:
    """Yields the text of a file that the block changes, and puts the file back when the block ends or is stopped.

    Raises:
        MaskcastError: another process changes it, or one that was killed has not put it back.
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
    """Gives each of two paths what the other has, at one moment; returns False where that cannot be."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def _taken(place: Path, waits: bool) -> int | None:
    """Returns the descriptor that holds the lock, or None where the file system knows no locks."""
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
        here = _is_at(lock, place)  # else who held it has ended meanwhile, and removed it
        if here and not mine:  # of somebody who was killed
            place.unlink()
        elif here:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
            os.ftruncate(lock, 0)
            os.write(lock, json.dumps(holder).encode())
            return lock
        os.close(lock)


def _opened(place: Path) -> tuple[int, bool]:
    """Opens a lock's file; tells whether it may be written: that of another user may be read alone."""
    try:
        return os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), True
    except PermissionError:
        if not place.exists():  # it is the folder that may not be written
            raise
        return os.open(place, os.O_RDONLY | os.O_CLOEXEC), False


def _is_at(lock: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), place.stat())
    except FileNotFoundError:
        return False


def _told(place: Path) -> str:
    """Returns the line for those who come second."""
    out = place.with_name(place.name.removesuffix(SUFFIX))
    try:
        holder = json.loads(place.read_text(encoding="utf-8"))
        who = f"process {holder['pid']} on {holder['host']} has been writing it since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process is writing it"
    return f"{out}: {who}; wait for it, end it, or write elsewhere"
