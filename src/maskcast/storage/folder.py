"""A local folder as a store."""

import errno
import os
import shutil
from collections.abc import Iterator, Set
from pathlib import Path

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.storage.transfer import Item, Transfer, num_pieces
from maskcast.writing import link, replace_synced


class Folder:
    """The files of a local folder (see `Store`); fetching hard-links them, storing copies them.

    Symbolic links are followed; their targets must be in the folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def contains(self, path: Path) -> bool:
        """Whether a path is inside the folder."""
        return self._path.resolve() in path.resolve().parents

    def items(self) -> dict[str, Item]:
        """Returns the items in the folder by name, or the single file."""
        if self._path.is_file():
            return {self._path.name: _item(self._path.name, self._path.resolve())}
        if not self._path.is_dir():
            hint = ", and replace `~` and `$`, which are not expanded" if {*"~$"} & {*str(self._path)} else ""
            raise MaskcastError(f"{self._path}: no such file or folder; fix the path{hint} (or use s3://, dvc:)")
        items = {item.name: item for item in _walk(self._path.resolve(), "", ())}
        if not items:
            raise MaskcastError(f"{self._path}: the folder is empty; pass the folder with the data")
        return items

    def has_above(self, name: str) -> bool:
        """Whether a file with this name is in the folder or in a parent folder."""
        folder = self._path.absolute()
        return any((each / name).is_file() for each in (folder, *folder.parents))

    def read(self, name: str) -> bytes | None:
        """Returns the content of a file, or None if it does not exist."""
        try:
            return (self._path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file atomically."""
        part = self._part(name)
        part.write_bytes(content)
        replace_synced(part, self._path / name)

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""
        (self._path / name).unlink(missing_ok=True)

    def fetch(self, item: Item, part: Path, transfer: Transfer) -> None:
        """Links a file to `part`; its checksum is not known."""
        part.unlink(missing_ok=True)
        link(Path(item.source), part)
        transfer.moved(num_pieces(item.size))

    def put(self, item: Item, sha256: str, resume: bool, transfer: Transfer) -> None:
        """Copies a file under a temporary name and renames it, unless the same content exists already."""
        target = self._path / item.name
        if not target.is_file() or sha256_of(target) != sha256:
            part = self._part(item.name)
            shutil.copyfile(item.source, part)
            replace_synced(part, target)
        transfer.moved(num_pieces(item.size))

    def forget(self, names: Set[str]) -> None:
        """Removes incomplete copies."""
        for name in names:
            self._part(name).unlink(missing_ok=True)

    def _part(self, name: str) -> Path:
        """Returns the temporary path of a file that is being written; readers skip dot files."""
        target = self._path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target.with_name(f".{target.name}.part")


def _walk(folder: Path, prefix: str, above: tuple[Path, ...]) -> Iterator[Item]:
    above = (*above, folder)
    for entry in sorted(folder.iterdir()):
        if is_junk(entry.name):
            continue
        if entry.name != entry.name.encode(errors="ignore").decode():
            raise MaskcastError(
                f"{folder}: file name {entry.name!r} is not UTF-8; rename it "
                "(`convmv -r --notest -f latin1 -t utf8 FOLDER` renames all)"
            )
        source = _target(entry, above) if entry.is_symlink() else entry
        if source.is_dir():
            yield from _walk(source, f"{prefix}{entry.name}/", above)
        elif source.is_file():
            yield _item(prefix + entry.name, source)
        else:
            raise MaskcastError(f"{entry}: neither a file nor a folder; remove it from the data set")


def _target(link: Path, above: tuple[Path, ...]) -> Path:
    """Returns what a symbolic link names.

    Args:
        link: the link.
        above: the data set's folder, and the folders from there to the link.

    Raises:
        MaskcastError: if that is missing, one of these folders, or outside of the first of them.
    """
    target, where = Path(os.path.realpath(link)), f"{link}: symbolic link to {os.readlink(link)}"
    if target in above or _is_loop(link):
        raise MaskcastError(f"{where} is circular: it leads back to itself or to a folder around it; remove it")
    if not target.exists():
        raise MaskcastError(f"{where} is broken: {target} does not exist; remove it, or link what it should name")
    if not target.is_relative_to(above[0]):
        raise MaskcastError(
            f"{where} points outside of {above[0]}, so the data set would be incomplete elsewhere; give a folder "
            "that contains both, or replace it by its target (`cp -rL FOLDER COPY` replaces all)"
        )
    return target


def _is_loop(link: Path) -> bool:
    """Whether links lead in a circle without an end."""
    try:
        link.stat()
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def _item(name: str, source: Path) -> Item:
    stat = source.stat()
    return Item(name, str(source), stat.st_size, stat.st_mtime)
