"""Data by reference: a large output stays where all pods see it, and a small folder that names it is passed on.

``MASKCAST_DATA`` names that place: a folder on a volume, or ``s3://bucket/prefix``. There each output lies below
its digest, whole or not at all, once however many runs made it. The output's own path gets a folder with one file,
``REFERENCE.json``. A stage that is given such a folder as an input reads the data: in place from a volume, from S3
by a copy that the machine keeps (``MASKCAST_DATA_CACHE``). Without ``MASKCAST_DATA`` every output is itself.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from maskcast.digest import digest_tree
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import content_of, parsing
from maskcast.runner.locks import sole_writer
from maskcast.runner.outputs import beside, remove, resume_dir
from maskcast.storage.store import fetch, put

STORE, CACHE = "MASKCAST_DATA", "MASKCAST_DATA_CACHE"
REFERENCE = "REFERENCE.json"
LEAST = 64 << 20  # bytes; what is smaller is passed on itself, so that people find it where they look


class Reference(BaseModel):
    """What ``REFERENCE.json`` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["maskcast-reference/1"] = "maskcast-reference/1"
    digest: str = Field(pattern="^[0-9a-f]{32}$")
    """``digest_tree`` of the data, and the name of its folder."""
    store: str
    """Where it was written to: ``MASKCAST_DATA``."""


def referred(path: Path) -> Path:
    """Returns where the data of an input lies: the input itself, unless it is a reference.

    Raises:
        MaskcastError: it is a reference that cannot be read, to another place than ``MASKCAST_DATA``, or to data
            that is gone.
    """
    file = path / REFERENCE
    if not file.is_file():
        return path
    again = "run the stage that wrote it again"
    raw = content_of(file, "reference", again)
    with parsing(file, "a reference to data", again):
        reference = Reference.model_validate_json(raw)
    store = _store()
    if store != reference.store:
        raise MaskcastError(
            f"{path}: its data lies in {reference.store}; set {STORE} to that"
            + (f" instead of {store}" if store else "")
        )
    if store.startswith("s3://"):
        return _fetched(path, store, reference.digest)
    if not (found := Path(store, reference.digest)).is_dir():
        raise MaskcastError(
            f"{path}: its data, {found}, is gone; run the stage that wrote it again, without Kubeflow's cache"
        )
    return found


def placed(partial: Path, place: Path) -> None:
    """Puts an output that is whole next to its final path: the output, or a reference to it.

    Args:
        partial: where the stage wrote it; gone afterwards.
        place: on the same file system as the final path.
    """
    store = _store()
    if store is None or not partial.is_dir() or (partial / REFERENCE).is_file() or _size(partial) < LEAST:
        if partial != place:
            shutil.move(partial, place)
        return
    reference = Reference(digest=digest_tree(partial), store=store)
    if store.startswith("s3://"):
        put(partial, f"{store}/{reference.digest}")
    else:
        _keep(partial, Path(store, reference.digest))
    remove(partial)
    place.mkdir()
    (place / REFERENCE).write_text(reference.model_dump_json(indent=1) + "\n", encoding="utf-8")
    say(f"{place.name.removesuffix('.partial')} stays in {store}/{reference.digest}")


def partial_of(out: Path) -> Path:
    """Returns where a stage writes an output: beside it.

    Where outputs stay on a volume, a pod's own disk may be too small: the partial output lies on the volume at
    once, with what a killed run needs.
    """
    store = _store()
    if store is None or store.startswith("s3://") or "MASKCAST_RESUME_DIR" not in os.environ:
        return beside(out)
    return resume_dir(out).with_suffix(".partial")


def _store() -> str | None:
    return (os.environ.get(STORE) or "").rstrip("/") or None


def _keep(partial: Path, target: Path) -> None:
    """Moves a folder to its digest's name; whoever is second drops theirs, which is the same."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(target, waits=True):
        if target.is_dir():
            return
        incoming = target.with_name(f"{target.name}.incoming")
        remove(incoming)  # of a run that was killed here
        try:
            shutil.move(partial, incoming)  # a copy where it comes from another volume
            incoming.rename(target)
        finally:
            remove(incoming)


def _fetched(path: Path, store: str, digest: str) -> Path:
    cache = Path(os.environ.get(CACHE) or Path(tempfile.gettempdir(), "maskcast-data"))
    target = cache / digest
    cache.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        return target
    with sole_writer(target, waits=True):  # stages run side by side, and may want the same data
        if target.is_dir():
            return target
        incoming = target.with_name(f"{digest}.incoming")  # what a killed run has fetched is passed over
        try:
            fetch(f"{store}/{digest}", incoming)  # each file by its checksum
        except MaskcastError as error:
            raise MaskcastError(f"{path}: its data cannot be fetched: {error}") from None
        incoming.rename(target)
    return target


def _size(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.rglob("*") if entry.is_file())
