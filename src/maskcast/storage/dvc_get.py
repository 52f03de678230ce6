"""A program that downloads data of a DVC repository, with the hashes that DVC has recorded of them.

It is a process of its own, so that a download that hangs can be ended. DVC verifies nothing that it gets.
"""

import hashlib
import json
import posixpath
import sys
from contextlib import closing
from pathlib import Path

from maskcast.errors import one_line


def main(repository: str, path: str, target: str, record: str) -> None:
    """Downloads a file or folder of a repository as `dvc get` does.

    Args:
        repository: folder or Git URL.
        path: of the data in there.
        target: path to download to.
        record: file for the names and values of the hashes, by path relative to ``target``; files that are not
            DVC's, or come from the folder of a repository, have none.
    """
    from dvc.api import DVCFileSystem  # type: ignore[import-untyped]

    with closing(DVCFileSystem(repository, subrepos=True)) as files:
        found = {path: files.info(path)}
        files.get(path, target, recursive=True)
        found |= files.find(path, withdirs=True, detail=True)
    hashes = {
        posixpath.relpath(name, path): one["dvc_info"]["entry"].hash_info
        for name, one in found.items()
        if one.get("dvc_info") and not one.get("fs_info")
    }
    known = {name: (one.name, one.value) for name, one in hashes.items() if one and one.name.startswith("md5")}
    for folder, (_, value) in known.items():
        if value.endswith(".dir") and _listing_hash(folder, known) != value:
            raise ValueError(f"the list of files, {value}, is damaged: delete it in the remote or cache")
    of_files = {name: one for name, one in known.items() if not one[1].endswith(".dir")}
    Path(record).write_text(json.dumps(of_files), encoding="utf-8")


def _listing_hash(folder: str, known: dict[str, tuple[str, str]]) -> str:
    """Returns DVC's hash of the list of the files in a folder."""
    prefix = "" if folder == "." else f"{folder}/"
    inside = {name.removeprefix(prefix): value for name, (_, value) in known.items() if name.startswith(prefix)}
    listing = [
        {"md5": value, "relpath": name} for name, value in sorted(inside.items()) if not value.endswith(".dir")
    ]
    return f"{hashlib.md5(json.dumps(listing).encode(), usedforsecurity=False).hexdigest()}.dir"


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except Exception as failure:
        sys.exit(f"ERROR: {one_line(failure)}")
