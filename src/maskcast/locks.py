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
from maskcast.stopping import raise_on_signals
from maskcast.writing import replace_synced

SUFFIX = ".partial.lock"
NO_LOCK_ERRNOS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # errors of file systems without locks
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # from fcntl.h and stdio.h
_open_locks: set[int] = set()  # file descriptors of locks


class LockedError(MaskcastError):
    """Another process writes an output.

    Attributes:
        holder: the process, e.g. ``process 12 on node1 since 2026-01-01T12:00:00+00:00``.
    """

    def __init__(self, output: Path, holder: str) -> None:
        super().__init__(output, holder)  # both in args, so that it can be pickled
        self.holder = holder

    def __str__(self) -> str:
        output, holder = self.args
        return f"{output}: locked by {holder}; wait for it, end it, or write to another path"


@contextmanager
def exclusive_lock(path: Path, *, blocking: bool = False) -> Iterator[None]:
    """A context that holds the lock of an output, ``<path>.partial.lock``.

    The system releases the lock whenever the process ends, so that nothing has to be removed by hand.

    Args:
        path: of the output.
        blocking: whether to wait while another process holds the lock.

    Raises:
        LockedError: another process holds it and ``blocking`` is false; the message has its id, host and start.
    """
    lock_file = path.with_name(path.name + SUFFIX)
    lock = _acquire(lock_file, blocking)
    try:
        if lock is not None:
            _open_locks.add(lock)
        yield
    finally:
        if lock is not None:
            _open_locks.discard(lock)
            lock_file.unlink(missing_ok=True)  # removed while held; processes that wait notice that
            os.close(lock)


def _close_locks() -> None:
    """Closes the locks in a forked process, which writes no outputs and may outlive this one."""
    for lock in _open_locks:
        os.close(lock)
    _open_locks.clear()


os.register_at_fork(after_in_child=_close_locks)


@contextmanager
def temporary_change(path: Path) -> Iterator[str]:
    """A context in which a file may be changed; it yields the text, and restores the file at the end.

    Raises:
        MaskcastError: another process has changed it, or a killed one has not restored it.
    """
    kept = path.with_name(path.name + ".kept")
    with exclusive_lock(path), raise_on_signals():
        if kept.exists():
            raise MaskcastError(
                f"{path}: a killed run left it changed; rename {kept.name} to {path.name} to restore it, or "
                f"remove {kept.name} to keep the changes"
            )
        partial = kept.with_name(kept.name + ".partial")
        shutil.copyfile(path, partial)
        replace_synced(partial, kept)
        try:
            yield path.read_text(encoding="utf-8")
        finally:
            kept.replace(path)


def exchange(one: Path, other: Path) -> bool:
    """Exchanges two paths atomically; returns False if one does not exist, or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def _acquire(lock_file: Path, blocking: bool) -> int | None:
    """Returns the descriptor that holds the lock, or None if the file system has no locks."""
    while True:
        lock, writable = _open_lock_file(lock_file)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise _locked_error(lock_file) from None
        except OSError as error:
            os.close(lock)
            if error.errno in NO_LOCK_ERRNOS:
                lock_file.unlink(missing_ok=True)
                return None
            raise
        is_current = _is_same_file(lock, lock_file)  # else the holder has ended and removed it
        if is_current and not writable:  # left by a killed process of another user
            lock_file.unlink()
        elif is_current:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
            os.ftruncate(lock, 0)
            os.write(lock, json.dumps(holder).encode())
            return lock
        os.close(lock)


def _open_lock_file(lock_file: Path) -> tuple[int, bool]:
    """Opens a lock file; returns whether it is writable, as another user's may be read-only."""
    try:
        return os.open(lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), True
    except PermissionError:
        if not lock_file.exists():  # the folder is not writable
            raise
        return os.open(lock_file, os.O_RDONLY | os.O_CLOEXEC), False


def _is_same_file(lock: int, lock_file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), lock_file.stat())
    except FileNotFoundError:
        return False


def _locked_error(lock_file: Path) -> LockedError:
    """Returns the error for other processes."""
    output = lock_file.with_name(lock_file.name.removesuffix(SUFFIX))
    try:
        holder = json.loads(lock_file.read_text(encoding="utf-8"))
        process = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        process = "another process"
    return LockedError(output, process)
