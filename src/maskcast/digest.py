"""Hashes of files, folders and JSON values."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from maskcast.files import tree_files

DATA_HASH = "maskcast.data_hash."  # tag of an MLflow run: the hash of an input
DVC_HASH = "maskcast.dvc_hash."  # the same with DVC's hash, for `dvc pull`
INDEX = "index.json"  # of a clip store
CLIP_STORE_FORMAT = b"maskcast-clips/"  # start of the format name in there


def sha256_of(path: Path) -> str:
    """Returns the sha256 of a file, which is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(value: Any, digits: int = 32) -> str:
    """Returns a hash (so many hex digits) of a JSON value; the order of keys does not count.

    What JSON lacks, such as a date of a YAML file, counts as its text.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:digits]


def digest_tree(path: Path) -> str:
    """Returns a hash (32 hex digits) of the contents of a file or folder.

    For a clip store, only ``index.json`` is hashed, because it contains the sha256 of every shard. For any other
    folder, the relative paths and contents of all files are hashed, in sorted order.
    """
    if path.is_file():
        return sha256_of(path)[:32]
    if is_clip_store(path):
        return sha256_of(path / INDEX)[:32]
    return digest_files(path, tree_files(path))


def digest_files(folder: Path, files: Iterable[Path]) -> str:
    """Returns what ``digest_tree`` would return if a folder had only these of its files."""
    total = hashlib.sha256()
    for file in sorted(files):
        total.update(_encoded(f"{file.relative_to(folder).as_posix()}\0{sha256_of(file)}\n"))
    return total.hexdigest()[:32]


def stamp_tree(path: Path) -> str:
    """Returns a text that changes if a file, or one in a folder, is replaced or modified.

    Files are not read: size, modification time and inode are compared.
    """
    files = [path] if path.is_file() else tree_files(path)
    found = [(file.relative_to(path).as_posix(), file.stat()) for file in files]
    lines = [f"{name}\0{each.st_size} {each.st_mtime_ns} {each.st_ino}" for name, each in found]
    return hashlib.sha256(_encoded("\n".join(lines))).hexdigest()


def is_clip_store(path: Path) -> bool:
    """Whether a path is a clip store, by its index."""
    index = path / INDEX
    return index.is_file() and CLIP_STORE_FORMAT in index.read_bytes()


def _encoded(text: str) -> bytes:
    """Returns a text in UTF-8, with the bytes of file names that are not UTF-8 as they are."""
    return text.encode(errors="surrogateescape")
