"""Data by reference: large outputs stay in shared storage, and small folders with references are passed on.

``MASKCAST_DATA`` names the storage: a folder on a volume, or ``s3://bucket/prefix``. Each output is stored there
below its digest, atomically, and only once if several runs write the same. The output's own path becomes a folder
with one file, ``REFERENCE.json``. A stage with such a folder as an input reads the data in place from a volume, or
from S3 by a local copy (in ``MASKCAST_DATA_CACHE``). Without ``MASKCAST_DATA`` outputs are stored at their own
paths.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.locks import exclusive_lock
from maskcast.progress import say
from maskcast.reading import parsing, read_file
from maskcast.runner.outputs import partial_path, remove, resume_dir
from maskcast.storage.store import fetch, put
from maskcast.writing import sync, sync_file_systems

STORE, CACHE = "MASKCAST_DATA", "MASKCAST_DATA_CACHE"
REFERENCE = "REFERENCE.json"
MIN_BYTES = 64 << 20  # bytes; smaller outputs are stored at their own paths, so that users find them there


class OutputReference(BaseModel):
    """The contents of ``REFERENCE.json``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["maskcast-reference/1"] = "maskcast-reference/1"
    digest: str = Field(pattern="^[0-9a-f]{32}$")
    """``digest_tree`` of the data, which is also the name of its folder."""
    store: str
    """The storage, ``MASKCAST_DATA``."""


def resolve_reference(path: Path) -> Path:
    """Returns the path of an input's data: the input itself, unless it is a reference.

    Raises:
        MaskcastError: it is a reference that cannot be read, points to another storage than ``MASKCAST_DATA``, or
            to data that no longer exists.
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
        return _fetch_cached(path, store, reference.digest)
    if not (folder := Path(store, reference.digest)).is_dir():
        raise MaskcastError(
            f"{path}: its data, {folder}, does not exist; run the stage that wrote it again, on a cluster with "
            "`maskcast pipeline submit --no-cache`"
        )
    return folder


def store_output(partial: Path, target: Path) -> None:
    """Moves a complete output, or a reference to it, next to its final path.

    Args:
        partial: temporary path of the output; it does not exist afterwards.
        target: on the same file system as the final path.
    """
    store = _store()
    if store is None or not partial.is_dir() or (partial / REFERENCE).is_file() or _size(partial) < MIN_BYTES:
        if partial != target:
            shutil.move(partial, target)
        return
    reference = OutputReference(digest=digest_tree(partial), store=store)
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
    """Moves a folder to the name of its digest; if that exists already, the new folder is equal and is dropped."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(target, blocking=True):
        if target.is_dir():
            return
        incoming = target.with_name(f"{target.name}.incoming")
        remove(incoming)  # left by a killed run
        try:
            shutil.move(partial, incoming)  # copies if it comes from another volume
            sync_file_systems(incoming)
            incoming.rename(target)
            sync(target.parent)
        finally:
            remove(incoming)


def _fetch_cached(path: Path, store: str, digest: str) -> Path:
    cache = Path(os.environ.get(CACHE) or Path(tempfile.gettempdir(), "maskcast-data"))
    target = cache / digest
    cache.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        return target
    with exclusive_lock(target, blocking=True):  # parallel stages may need the same data
        if target.is_dir():
            return target
        incoming = target.with_name(f"{digest}.incoming")  # files that a killed run has fetched are skipped
        try:
            fetch(f"{store}/{digest}", incoming)  # verifies the checksum of each file
        except MaskcastError as error:
            raise MaskcastError(f"{path}: its data cannot be fetched: {error}") from None
        sync_file_systems(incoming)
        incoming.rename(target)
    return target


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
