"""Data by reference: large outputs stay in shared storage, and small folders with references are passed on.

``MASKCAST_DATA`` names the storage: a folder on a volume, or ``s3://bucket/prefix``. Each output is stored there
below its digest, atomically, and only once if several runs write the same. The output's own path becomes a folder
with one file, ``REFERENCE.json``. A stage with such a folder as an input reads the data in place from a volume, or
from S3 by a local copy (in ``MASKCAST_DATA_CACHE``). Without ``MASKCAST_DATA`` outputs are stored at their own
paths.

Data may be damaged later. A reader compares the number and the total size of the files, for which it only lists
them: other data on a volume are refused, and a copy of data in S3 is fetched again. Changed bytes are not noticed,
because nobody would read 100 GB at the start of each stage. When a stage stores the same data again, those on a
volume are read as a whole, and replaced if they differ.
"""

import errno
import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.locks import exclusive_lock
from maskcast.progress import say
from maskcast.reading import parsing, read_file
from maskcast.runner.fingerprint import has_digest
from maskcast.runner.outputs import partial_path, remove, replace, resume_dir, write_errors
from maskcast.storage.store import MANIFEST, fetch, put
from maskcast.writing import sync, sync_file_systems

STORE, CACHE = "MASKCAST_DATA", "MASKCAST_DATA_CACHE"
REFERENCE = "REFERENCE.json"
# Plain `dvc repro` skips the stage, because the reference itself has not changed.
STORE_AGAIN = (
    "run the stage that wrote it again: `dvc repro -f -s STAGE`, on a cluster `maskcast pipeline submit "
    "--no-cache`"
)
MIN_BYTES = 64 << 20  # bytes; smaller outputs are stored at their own paths, so that users find them there


class OutputReference(BaseModel):
    """The contents of ``REFERENCE.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["maskcast-reference/1"] = "maskcast-reference/1"
    digest: str = Field(pattern="^[0-9a-f]{32}$")
    """``digest_tree`` of the data, which is also the name of its folder."""
    store: str
    """The storage, ``MASKCAST_DATA``."""
    files: int | None = None
    """The number of files; None in references of older versions."""
    size: int | None = None
    """Their total size in bytes."""

    def describes(self, folder: Path) -> bool:
        """Whether a folder has that number and size of files."""
        return self.files is None or _extent(folder) == (self.files, self.size)

    def check(self, path: Path, data: Path, where: object) -> None:
        """Checks the number and size of the files.

        Args:
            path: the reference, for the error.
            data: folder of the data.
            where: what to name in the error.

        Raises:
            MaskcastError: they are others than what was stored.
        """
        if not self.describes(data):
            count, size = _extent(data)
            raise MaskcastError(
                f"{path}: its data, {where}, is damaged: {count} files of {size} bytes in total, where "
                f"{self.files} of {self.size} were stored; {STORE_AGAIN}"
            )


def resolve_reference(path: Path) -> Path:
    """Returns the path of an input's data: the input itself, unless it is a reference.

    Raises:
        MaskcastError: it is a reference that cannot be read, points to another storage than ``MASKCAST_DATA``, or
            to data that no longer exists, or is damaged.
    """
    file = path / REFERENCE
    if not file.is_file():
        return path
    remedy = "run the stage that wrote it again"
    raw = read_file(file, "reference", remedy)
    with parsing(file, "a reference to data", remedy):
        reference = OutputReference.model_validate_json(raw)
    store = _store()
    if store != reference.store:
        raise MaskcastError(
            f"{path}: data is stored in {reference.store}, but {STORE} is {store or 'not set'}; set it to "
            f"{reference.store}"
        )
    if store.startswith("s3://"):
        return _fetch_cached(path, reference)
    if not (folder := Path(store, reference.digest)).is_dir():
        raise MaskcastError(f"{path}: its data, {folder}, does not exist; {STORE_AGAIN}")
    reference.check(path, folder, folder)
    return folder


def store_output(partial: Path, target: Path) -> None:
    """Moves a complete output, or a reference to it, next to its final path.

    Args:
        partial: temporary path of the output; it does not exist afterwards.
        target: on the same file system as the final path.
    """
    store = _store()
    is_plain = store is None or not partial.is_dir() or (partial / REFERENCE).is_file()
    count, size = (0, 0) if is_plain else _extent(partial)
    if store is None or size < MIN_BYTES:
        if partial != target:
            shutil.move(partial, target)
        return
    reference = OutputReference(digest=digest_tree(partial), store=store, files=count, size=size)
    if store.startswith("s3://"):
        put(partial, f"{store}/{reference.digest}")
    else:
        _move_to_volume(partial, Path(store, reference.digest))
    remove(partial)
    target.mkdir()
    (target / REFERENCE).write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")
    say(f"{target.name.removesuffix('.partial')}: stored in {store}/{reference.digest}")


def working_path(out: Path) -> Path:
    """Returns the temporary path of an output, which is beside the final one.

    If outputs stay on a volume, it is on that volume instead, with the checkpoints for resuming, because a pod's
    own disk may be too small.
    """
    store = _store()
    if store is None or store.startswith("s3://") or "MASKCAST_RESUME_DIR" not in os.environ:
        return partial_path(out)
    return resume_dir(out).with_suffix(".partial")


def _store() -> str | None:
    return (os.environ.get(STORE) or "").rstrip("/") or None


def _move_to_volume(partial: Path, target: Path) -> None:
    """Moves a folder to the name of its digest; it is dropped if equal data are there already."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(target, blocking=True):
        if target.is_dir():
            if has_digest(target, target.name):
                return
            say(f"{target}: damaged; it is replaced")
        incoming = target.with_name(f"{target.name}.incoming")
        remove(incoming)  # left by a killed run
        try:
            shutil.move(partial, incoming)  # copies if it comes from another volume
            sync_file_systems(incoming)
            replace(incoming, target)
            sync(target.parent)
        finally:
            remove(incoming)


def _fetch_cached(path: Path, reference: OutputReference) -> Path:
    """Returns this machine's copy of data in S3, which is fetched if it is missing or damaged."""
    given = os.environ.get(CACHE)
    cache = Path(given or Path(tempfile.gettempdir(), f"maskcast-data-{os.getuid()}"))
    target, address = cache / reference.digest, f"{reference.store}/{reference.digest}"
    with write_errors(cache, CACHE, f"set {CACHE} to a folder of yours"):
        cache.mkdir(mode=0o777 if given else 0o700, parents=True, exist_ok=True)
        if not given and cache.lstat().st_uid != os.getuid():  # anybody may make it in a folder like /tmp
            raise PermissionError(errno.EACCES, "belongs to another user")
        if target.is_dir() and reference.describes(target):
            return target
        with exclusive_lock(target, blocking=True):  # parallel stages may need the same data
            if target.is_dir() and reference.describes(target):
                return target
            incoming = target.with_name(f"{target.name}.incoming")  # what a killed run has fetched is skipped
            try:
                fetch(address, incoming)  # verifies the checksum of each file
            except MaskcastError as error:
                raise MaskcastError(f"{path}: its data cannot be fetched: {error}") from None
            reference.check(path, incoming, address)
            sync_file_systems(incoming)
            replace(incoming, target)
    return target


def _extent(folder: Path) -> tuple[int, int]:
    """Returns the number and the total size, in bytes, of the files that a storage has of a folder."""
    files = [path for path in list_files(folder) if path.is_file() and path != folder / MANIFEST]
    return len(files), sum(path.stat().st_size for path in files)
