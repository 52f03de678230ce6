"""Transfers data sets between this machine and their storage: `s3://bucket/prefix`, `file:///path` or a path.

A data set that `put` writes is never read while it is incomplete. `put` first removes the manifest `SHA256SUMS`
(in the format of `sha256sum`) and writes it last. In between the address contains `SHA256SUMS.incomplete`, and
`fetch` rejects everything below it. With a manifest, `fetch` transfers exactly the listed files, each checked by
its checksum. Without one, the files are from other tools, and all are fetched; for a bucket `fetch` logs this.
Only one `put` at a time may write to an address. Of several with different data, all but the last to begin fail,
unless it begins in the moment between another's last check and its manifest; `fetch` then refuses mixed data by
their checksums.

A transfer that was killed resumes when it is run again: complete files, and complete pieces of large objects, are
skipped. Junk files of operating systems (`.DS_Store`, `__MACOSX`, dot files) are not transferred.
"""

import hashlib
import re
import shutil
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.files import is_junk
from maskcast.progress import say
from maskcast.storage.folder import Folder
from maskcast.storage.s3 import open_bucket
from maskcast.storage.transfer import Item, Store, Transfer, num_pieces
from maskcast.writing import sync

MANIFEST = "SHA256SUMS"
INCOMPLETE = "SHA256SUMS.incomplete"  # the new manifest, from which the next run resumes


def fetch(uri: str, destination: Path) -> list[Path]:
    """Transfers all files below an address, or the single file that it names, into a folder.

    A file with the same size and modification time is not fetched again. A file gets its final name once its
    checksum is verified (the one in `SHA256SUMS`, the sha256 that `put` stored with the object, or an MD5 ETag),
    or without any of these its size. Local files are hard-linked if possible, so treat fetched files as read-only.

    Returns:
        The files, sorted by name.

    Raises:
        MaskcastError: if something is missing, differs or cannot be reached; names the file or the remedy.
    """
    with _open(uri) as store:
        items = _list_items(store, uri)
        if not items:
            raise MaskcastError(
                f"{uri}: no data, only hidden files and system files such as __MACOSX; fix the address, or rename "
                "the data files"
            )
        _check_conflicts(uri, {item.name for item in items})
        if isinstance(store, Folder) and store.contains(destination):
            raise MaskcastError(f"{uri}: contains the output {destination}; choose an output outside of it")
        parts = destination / ".parts"
        parts.mkdir(parents=True, exist_ok=True)
        transfer = Transfer()

        def fetch_file(item: Item) -> None:
            target = destination / item.name
            if item.is_at(target):
                transfer.moved(num_pieces(item.size))
                return
            part = parts / hashlib.sha256(repr(item).encode()).hexdigest()[:32]
            checksum = store.fetch(item, part, transfer)
            if item.sha256 is not None:
                checksum = "sha256", item.sha256
            found = part.stat()
            if found.st_size != item.size or (checksum and _hash(part, checksum[0]) != checksum[1]):
                part.unlink()
                raise MaskcastError(
                    f"{uri}: {item.name!r} does not match its size or checksum; fetch it again or store it again"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            if found.st_nlink == 1:  # not a link, whose content was there before
                sync(part)  # else a fetch after a power loss could skip zeros of the right size
            part.replace(target)

        jobs = [partial(fetch_file, item) for item in items]
        transfer.run(jobs, f"fetching {uri} (8 MiB pieces)", _pieces(items))
        shutil.rmtree(parts)
    return [destination / item.name for item in items]


def put(path: Path, uri: str) -> None:
    """Stores a file, or all files of a folder, below an address, then their `SHA256SUMS`.

    Files that exist there with the same content are not sent again.

    Raises:
        MaskcastError: if there is nothing to store, the source is an incomplete upload, the address cannot be
            written, or another process stores other data there.
    """
    source, target = Folder(path), local_path(uri)
    files = source.items()
    if target is not None and source.contains(target):
        raise MaskcastError(f"{path}: contains the target {uri}; choose a target outside of it")
    for name in sorted(files):
        if INCOMPLETE in name.split("/"):
            raise MaskcastError(
                f"{path}: {name!r} marks data that is not complete; store it there again, or remove this file if "
                "the data is complete"
            )
        if name.startswith(f"{MANIFEST}/"):
            raise MaskcastError(f"{path}: {MANIFEST!r} is reserved for the list of checksums; rename this folder")
    items = [item for name, item in files.items() if name != MANIFEST]
    if not items:
        raise MaskcastError(f"{path}: no files to store; pass a file, or a folder with files")
    for item in items:
        if re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", item.name):
            raise MaskcastError(f"{path}: {item.name!r} contains a backslash or control characters; rename it")
    with ThreadPoolExecutor() as pool:
        checksums = list(pool.map(sha256_of, [Path(item.source) for item in items]))
    sums = dict(zip([item.name for item in items], checksums, strict=True))
    manifest = _manifest(sums)
    with _open(uri) as store:
        begun = store.read(INCOMPLETE)
        broken = _parse(begun, f"{uri}/{INCOMPLETE}") if begun else {}
        store.forget({name for name in broken if broken[name] != sums.get(name)})
        store.write(INCOMPLETE, manifest)
        store.remove(MANIFEST)
        transfer = Transfer()
        jobs = [partial(store.put, item, sums[item.name], item.name in broken, transfer) for item in items]
        transfer.run(jobs, f"storing in {uri} (8 MiB pieces)", _pieces(items))
        if (store.read(INCOMPLETE) or store.read(MANIFEST)) != manifest:  # another `put` of the same data may end
            raise MaskcastError(
                f"{uri}: another process stored other data there at the same time; wait for it, then store again "
                "the data that should be there"
            )
        store.write(MANIFEST, manifest)
        store.remove(INCOMPLETE)


def local_path(uri: str) -> Path | None:
    """Returns the path for `file:///path` or a path, and None for an `s3://` address.

    Raises:
        MaskcastError: for any other scheme.
    """
    scheme = re.match(r"([a-z][a-z0-9+.-]+):/", uri, re.IGNORECASE)
    if not scheme:
        return Path(uri)
    if scheme[1] == "s3":
        return None
    if match := re.fullmatch(r"file:(?://(?:localhost)?)?(/[^/].*)", uri):
        return Path(unquote(match[1]))
    raise MaskcastError(f"{uri}: unknown address; write s3://bucket/prefix, file:///path or a path")


def _open(uri: str) -> AbstractContextManager[Store]:
    path = local_path(uri)
    return open_bucket(uri) if path is None else nullcontext(Folder(path))


def _list_items(store: Store, uri: str) -> list[Item]:
    """Returns the items of an address, sorted by name.

    The markers are checked after the listing, so that any `put` which the listing may have overlapped is noticed.
    """
    stored = store.items()
    if store.has_above(INCOMPLETE) or any(name.endswith(f"/{INCOMPLETE}") for name in stored):
        raise MaskcastError(f"{uri}: the stored data set is not complete; wait, or store it again")
    manifest = store.read(MANIFEST)
    if manifest is None:
        names = [name for name in sorted(stored) if _is_data(name)]
        if len(names) > 1 and not isinstance(store, Folder):
            say(f"{uri}: has no {MANIFEST}; fetching all {len(names)} objects")
        return [stored[name] for name in names]
    items = []
    for name, sha256 in sorted(_parse(manifest, f"{uri}/{MANIFEST}").items()):
        if name not in stored:
            raise MaskcastError(f"{uri}: {name!r} is listed in {MANIFEST} but missing; store the data again")
        items.append(replace(stored[name], sha256=sha256))
    return items


def _check_conflicts(uri: str, names: Set[str]) -> None:
    """Rejects an object whose name is also a folder of other objects, which a file system cannot store."""
    for name in sorted(names):
        for folder in map(str, PurePosixPath(name).parents):
            if folder in names:
                raise MaskcastError(
                    f"{uri}: objects {folder!r} and {name!r} conflict as file and folder; rename one"
                )


def _pieces(items: list[Item]) -> int:
    return sum(num_pieces(item.size) for item in items)


def _is_data(name: str) -> bool:
    return not any(map(is_junk, name.split("/")))


def _manifest(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()


def _parse(manifest: bytes, path: str) -> dict[str, str]:
    sums = {}
    for number, line in enumerate(manifest.decode("utf-8", "replace").removesuffix("\n").split("\n"), 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+?)\r?", line)
        if not match:
            raise MaskcastError(
                f"{path}: line {number} is not a checksum; remove this file and store the data again"
            )
        if _is_data(match[2]):
            sums[match[2]] = match[1]
    return sums


def _hash(path: Path, function: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(function, usedforsecurity=False)).hexdigest()
