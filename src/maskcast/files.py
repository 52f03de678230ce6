"""File names, and the files below a folder; those of a user's folder come without junk of operating systems.

A folder that cannot be listed is an error: `os.walk` and `Path.glob` take it as empty.
"""

import errno
import fnmatch
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

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

    Junk is left out, and so is the record of fetch_dataset. A root that is no folder has no files.

    Raises:
        OSError: a folder cannot be listed.
    """
    if root.is_dir():
        yield from _walk_folders(root, root)


def walk_tree(root: Path) -> Iterator[os.DirEntry[str]]:
    """Yields all files, folders and links below a folder, junk included; linked folders are not followed.

    Raises:
        OSError: a folder cannot be listed.
    """
    for entry in _entries(root) if root.is_dir() else ():
        yield entry
        if entry.is_dir(follow_symlinks=False):
            yield from walk_tree(Path(entry.path))


def tree_files(root: Path) -> list[Path]:
    """Returns all files below a folder, junk included, sorted by path; linked folders are not followed.

    Raises:
        OSError: a folder cannot be listed.
    """
    return sorted(Path(entry.path) for entry in walk_tree(root) if _holds(entry.is_file))


def match_files(root: Path, pattern: str) -> list[Path]:
    """Returns the files and folders that a pattern matches as ``Path.glob`` does, sorted by path.

    ``*`` and ``**`` match no junk. A ``**`` at the end matches folders only, as up to Python 3.12.

    Raises:
        OSError: a folder cannot be listed.
    """
    return sorted({*_match(root, PurePosixPath(pattern).parts)}) if root.is_dir() else []


def list_files(root: Path, *suffixes: str) -> list[Path]:
    """Returns the files below a folder, sorted by path; with ``suffixes``, only those with one of these endings.

    Args:
        root: the folder.
        suffixes: in lower case, e.g. `.json`; matches any case.

    Raises:
        OSError: a folder cannot be listed.
    """
    return sorted(
        folder / name
        for folder, names in walk_folders(root)
        for name in names
        if not suffixes or os.path.splitext(name)[1].lower() in suffixes  # before a Path is created, which is slow
    )


def _walk_folders(folder: Path, root: Path) -> Iterator[tuple[Path, list[str]]]:
    folders, names = list[Path](), list[str]()
    for entry in _entries(folder):
        path = folder / entry.name
        if is_junk(entry.name):
            continue
        if not _holds(entry.is_dir):
            names += [] if is_origin(root, path) else [entry.name]
        elif not _is_link_cycle(path):
            folders.append(path)
    yield folder, names
    for inner in folders:
        yield from _walk_folders(inner, root)


def _match(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _match(folder, rest) if rest else [folder]
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False) and not is_junk(entry.name):
                yield from _match(folder / entry.name, parts)
        return
    names = [part]
    if set(part) & set("*?["):
        found = [entry.name for entry in _entries(folder)]
        names = [name for name in found if fnmatch.fnmatchcase(name, part) and not is_junk(name)]
    for path in (folder / name for name in names):
        if not rest and path.exists():
            yield path
        elif rest and path.is_dir():
            yield from _match(path, rest)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what is in a folder, sorted by name, except a file system's own folder, which only root may list."""
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if entry.name != "lost+found"), key=lambda entry: entry.name)


def _holds(question: Callable[[], bool]) -> bool:
    """Whether an entry is what is asked; a link that leads to itself is nothing."""
    try:
        return question()
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise


def _is_link_cycle(folder: Path) -> bool:
    """Whether a link leads to one of its own parent folders."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
