"""File names, and the files below a user's folder without junk of operating systems."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

ORIGIN = "SOURCE.json"  # the record of fetch_dataset at the root of a data set, which is no file of the set
MAX_NAME_BYTES = 200  # of a name: file systems allow 255, and a suffix, a rank or `.partial` may be appended


def file_stem(name: str) -> str:
    """Returns a clip's or video's name as used for files derived from it.

    Slashes become `_`. A name that is too long is cut, and a hash keeps it unique.
    """
    stem = name.replace("/", "_")
    data = os.fsencode(stem)
    if len(data) <= MAX_NAME_BYTES:
        return stem
    return f"{data[: MAX_NAME_BYTES - 9].decode(errors='ignore')}~{hashlib.sha256(data).hexdigest()[:8]}"


def is_junk(name: str) -> bool:
    """Whether a name is junk of an operating system: dot files, `__MACOSX`, `Thumbs.db`, Synology's `@eaDir`."""
    return name.startswith(".") or name in {"__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir"}


def is_origin(root: Path, path: Path) -> bool:
    """Whether a path is the record of fetch_dataset below the root of a data set."""
    return path.name == ORIGIN and path.parent == root


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yields a folder and all folders below it with their file names; links are followed, except in cycles.

    Junk is left out, and so is the record of fetch_dataset.
    """
    for place, folders, names in os.walk(root, followlinks=True):
        folder = Path(place)
        folders[:] = sorted(name for name in folders if not is_junk(name) and not _is_link_cycle(folder / name))
        yield folder, sorted(name for name in names if not (is_junk(name) or is_origin(root, folder / name)))


def list_files(root: Path, *suffixes: str) -> list[Path]:
    """Returns the files below a folder, sorted by path; with ``suffixes``, only those with one of these endings.

    Args:
        root: the folder.
        suffixes: in lower case, e.g. `.json`; matches any case.
    """
    return sorted(
        folder / name
        for folder, names in walk_folders(root)
        for name in names
        if not suffixes or os.path.splitext(name)[1].lower() in suffixes  # before a Path is created, which is slow
    )


def _is_link_cycle(folder: Path) -> bool:
    """Whether a link leads to one of its own parent folders."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
