"""Names of files, and what lies below a folder of users, without what operating systems leave there."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

MOST_BYTES = 200  # of a name; file systems take 255, and an ending, a rank or `.partial` is put to it


def file_stem(name: str) -> str:
    """Returns the name of a clip or a video as files that are made of it bear it.

    Slashes become `_`. What is too long for a file system is cut, and a digest keeps it apart from its like.
    """
    stem = name.replace("/", "_")
    data = os.fsencode(stem)
    if len(data) <= MOST_BYTES:
        return stem
    return f"{data[: MOST_BYTES - 9].decode(errors='ignore')}~{hashlib.sha256(data).hexdigest()[:8]}"


def is_junk(name: str) -> bool:
    """Tells what a system left behind (`__MACOSX`, `.DS_Store`, `Thumbs.db`, Synology's `@eaDir`) from data."""
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}


def folders_below(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields a folder and all below it, each with the names of its files; links are followed, but in no circle."""
    for place, folders, names in os.walk(root, followlinks=True):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if not is_junk(name) and not _circles(folder / name))
        yield folder, sorted(name for name in names if not is_junk(name))


def files_below(root: Path, *suffixes: str) -> list[Path]:
    """Returns the files below a folder in the order of their paths, of any kind or of these endings.

    Args:
        root: the folder.
        suffixes: in lower case, e.g. `.json`; files may have them in capitals.
    """
    return sorted(
        folder / name
        for folder, names in folders_below(root)
        for name in names
        if not suffixes or os.path.splitext(name)[1].lower() in suffixes  # before a Path is made of it
    )


def _circles(folder: Path) -> bool:
    """Whether a link leads to a folder that it lies in."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
