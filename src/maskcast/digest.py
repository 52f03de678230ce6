"""Names for data: a digest of a file, a folder, or everything a run depends on."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel

from maskcast.data.clips import FORMAT, sha256_of


def digest_tree(path: Path) -> str:
    """Returns 32 hex digits that name the contents of a file or folder.

    A clip store is named by its ``index.json`` alone, because that holds the sha256 of every shard; any other
    folder by the relative path and contents of each file, in sorted order.
    """
    index = path / "index.json"
    if path.is_file():
        return sha256_of(path)[:32]
    if index.is_file() and FORMAT.encode() in index.read_bytes():
        return sha256_of(index)[:32]
    total = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        total.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return total.hexdigest()[:32]


def fingerprint(params: BaseModel, **inputs: Path) -> str:
    """Returns 32 hex digits that name the params and the contents of the inputs, i.e. what a run depends on."""
    parts = {"params": params.model_dump(mode="json")} | {name: digest_tree(path) for name, path in inputs.items()}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
