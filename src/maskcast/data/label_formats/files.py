"""Opens what a user gives: a file of labels, a folder, or the archive that a tool exported."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from maskcast.data.archives import is_archive, unpack
from maskcast.data.images import numeric_sort
from maskcast.errors import MaskcastError
from maskcast.junk import is_junk


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Gives the path, or of an archive the folder that it is unpacked into for the time of the block.

    Raises:
        MaskcastError: there is nothing, or an empty file.
    """
    if not path.exists():
        raise MaskcastError(f"{path}: no such file or folder; give what the labelling tool exported")
    if path.is_file() and not path.stat().st_size:
        raise MaskcastError(f"{path}: is empty; export the labels again")
    if not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="maskcast-labels-") as scratch:
        unpack(path, Path(scratch) / path.stem)
        yield Path(scratch) / path.stem


def files_in(path: Path, patterns: Sequence[str], what: str) -> list[Path]:
    """Returns the file itself, or the files of a folder that match the first pattern that any matches.

    Raises:
        MaskcastError: the folder holds no such file.
    """
    if path.is_file():
        return [path]
    for pattern in patterns:
        found = [file for file in numeric_sort(path.rglob(pattern)) if file.is_file() and not is_junk(file.name)]
        if found:
            return found
    raise MaskcastError(f"{path}: holds no {' or '.join(patterns)}; give a file or export of {what}")
