"""Safe writing of files.

A file that is renamed before its content is on the disk may be full of zeros after a power loss.
"""

import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EINVAL, ENOSYS, ENOTSUP
from pathlib import Path
from typing import Any
from uuid import uuid4


def refuse_device(path: Path) -> None:
    """Refuses to replace a pipe or device, such as ``/dev/null``, by a file or folder.

    Raises:
        OSError: the path is a pipe or device.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(EINVAL, "a pipe or device, no file")


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, where the file system can tell."""
    with _if_supported(), _opened(path) as descriptor:
        os.fsync(descriptor)


def replace_synced(partial: Path, path: Path) -> None:
    """Moves a complete file to its path, in place of an older one, once its content is on the disk."""
    sync(partial)
    partial.replace(path)


def sync_file_systems(*paths: Path) -> None:
    """Waits until all that was written to the file systems of some paths is on their disks.

    For a folder of thousands of files this takes a tenth of a second, where ``sync`` of each takes many.

    Raises:
        OSError: something could not be written.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # not on Linux
        os.sync()
        return
    for path in {path.stat().st_dev: path for path in paths}.values():
        with _if_supported(), _opened(path) as descriptor:
            if syncfs(descriptor):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))


def link(source: str | Path, target: str | Path) -> None:
    """Creates a hard link, or a copy if the file system does not allow a link; a symbolic link is followed."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


def write_atomically(path: Path, text: str) -> None:
    """Writes a text atomically; if two processes write at once, the last one wins."""
    refuse_device(path)
    partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")  # a name of its own for each writer
    try:
        partial.write_text(text, encoding="utf-8")
        replace_synced(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON with a final newline."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _if_supported() -> Iterator[None]:
    """A context that ignores that a file system cannot flush, as some of networks, or a folder cannot be read."""
    try:
        yield
    except OSError as error:
        if error.errno not in (EACCES, EINVAL, ENOSYS, ENOTSUP):
            raise
