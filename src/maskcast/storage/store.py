"""Moves data sets between this machine and where they are kept: `s3://bucket/prefix`, `file:///path` or a path.

What `put` wrote is never half read. It removes the manifest `SHA256SUMS` first and writes it last, as `sha256sum`
would; in between the address holds `SHA256SUMS.incomplete`, and `fetch` refuses all below it. An address with a
manifest is fetched exactly as it lists, each file by its checksum. One without was filled by other tools: it is
fetched as it lies, and of a bucket `fetch` says so. Let one `put` at a time write to an address.

A transfer that was killed goes on when it is run again: whole files are passed over, and so are the pieces of a
large object. What operating systems leave behind (`.DS_Store`, `__MACOSX`, dot files) is not moved.
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

MANIFEST = "SHA256SUMS"
INCOMPLETE = "SHA256SUMS.incomplete"  # the manifest-to-be, which tells the next run what was under way


def fetch(uri: str, destination: Path) -> list[Path]:
    """Brings all files below an address, or the one file that it names, into a folder.

    A file of the same size and modification time is not fetched again. Each file gets its name once its checksum
    is right: its line in `SHA256SUMS`, the sha256 that `put` stored with the object, or an MD5 ETag; without any
    of them its size. Local files are hard-linked where possible: take what is fetched as read-only.

    Returns:
        The files, in the order of their names.

    Raises:
        MaskcastError: naming the file or the remedy, when something is missing, differs or cannot be reached.
    """
    with _open(uri) as store:
        items = _whole(store, uri)
        if not items:
            raise MaskcastError(
                f"{uri}: holds no data, only dot files and what systems leave behind; mend the address, or rename "
                "what is data"
            )
        _refuse_clashes(uri, {item.name for item in items})
        if isinstance(store, Folder) and store.holds(destination):
            raise MaskcastError(f"{uri}: holds the output {destination} itself; write the output elsewhere")
        parts = destination / ".parts"
        parts.mkdir(parents=True, exist_ok=True)
        transfer = Transfer()

        def fetch_file(item: Item) -> None:
            target = destination / item.name
            if item.is_at(target):
                transfer.moved(num_pieces(item.size))
                return
            part = parts / hashlib.sha256(repr(item).encode()).hexdigest()[:32]
            known = store.fetch(item, part, transfer)
            if item.sha256 is not None:
                known = "sha256", item.sha256
            if part.stat().st_size != item.size or (known and _hash(part, known[0]) != known[1]):
                part.unlink()
                raise MaskcastError(
                    f"{uri}: {item.name!r} differs from its checksum; fetch it again or store it again"
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            part.replace(target)

        jobs = [partial(fetch_file, item) for item in items]
        transfer.run(jobs, f"fetching {uri} (8 MiB pieces)", _pieces(items))
        shutil.rmtree(parts)
    return [destination / item.name for item in items]


def put(path: Path, uri: str) -> None:
    """Stores a file, or all files of a folder, below an address, then their `SHA256SUMS`.

    Files that are there with the same content are not sent again.

    Raises:
        MaskcastError: when there is nothing to store, what is there is half of an upload, or the address cannot be
            written.
    """
    source, target = Folder(path), local_path(uri)
    found = source.items()
    if target is not None and source.holds(target):
        raise MaskcastError(f"{path}: holds the address {uri} itself; store it elsewhere")
    for name in sorted(found):
        if INCOMPLETE in name.split("/"):
            raise MaskcastError(
                f"{path}: {name!r} tells that what was stored there is not complete; store it again, or remove "
                "that file where the data is whole"
            )
        if name.startswith(f"{MANIFEST}/"):
            raise MaskcastError(f"{path}: {MANIFEST!r} is a folder, and the list of checksums; rename the folder")
    items = [item for name, item in found.items() if name != MANIFEST]
    if not items:
        raise MaskcastError(f"{path}: no files to store; give a file or a folder that has some")
    for item in items:
        if re.search(r"[\x00-\x1f\x7f\\\ud800-\udfff]", item.name):
            raise MaskcastError(f"{path}: no name for other machines: {item.name!r}; rename it")
    with ThreadPoolExecutor() as pool:
        checksums = list(pool.map(sha256_of, [Path(item.source) for item in items]))
    sums = dict(zip([item.name for item in items], checksums, strict=True))
    with _open(uri) as store:
        begun = store.read(INCOMPLETE)
        broken = _parse(begun, f"{uri}/{INCOMPLETE}") if begun else {}
        store.forget({name for name in broken if broken[name] != sums.get(name)})
        store.write(INCOMPLETE, _manifest(sums))
        store.remove(MANIFEST)
        transfer = Transfer()
        jobs = [partial(store.put, item, sums[item.name], item.name in broken, transfer) for item in items]
        transfer.run(jobs, f"storing in {uri} (8 MiB pieces)", _pieces(items))
        store.write(MANIFEST, _manifest(sums))
        store.remove(INCOMPLETE)


def local_path(uri: str) -> Path | None:
    """Returns the path that `file:///path` or a path names, None for an `s3://` address.

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


def _whole(store: Store, uri: str) -> list[Item]:
    """Returns what an address holds, by name.

    What is asked after the listing sees every `put` that the listing may have met half-way.
    """
    found = store.items()
    if store.has_above(INCOMPLETE) or any(name.endswith(f"/{INCOMPLETE}") for name in found):
        raise MaskcastError(f"{uri}: what is being stored there is not complete; wait, or store it again")
    manifest = store.read(MANIFEST)
    if manifest is None:
        names = [name for name in sorted(found) if _is_data(name)]
        if len(names) > 1 and not isinstance(store, Folder):
            say(f"{uri}: has no {MANIFEST}; its {len(names)} objects are fetched as they are")
        return [found[name] for name in names]
    items = []
    for name, sha256 in sorted(_parse(manifest, f"{uri}/{MANIFEST}").items()):
        if name not in found:
            raise MaskcastError(f"{uri}: {name!r} of {MANIFEST} is missing; store the data again")
        items.append(replace(found[name], sha256=sha256))
    return items


def _refuse_clashes(uri: str, names: Set[str]) -> None:
    """Refuses what a bucket can hold and a folder cannot: an object that others lie in."""
    for name in sorted(names):
        for folder in map(str, PurePosixPath(name).parents):
            if folder in names:
                raise MaskcastError(f"{uri}: {folder!r} is an object, and {name!r} lies in it; rename one of them")


def _pieces(items: list[Item]) -> int:
    return sum(num_pieces(item.size) for item in items)


def _is_data(name: str) -> bool:
    return not any(map(is_junk, name.split("/")))


def _manifest(sums: Mapping[str, str]) -> bytes:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())).encode()


def _parse(manifest: bytes, where: str) -> dict[str, str]:
    sums = {}
    for number, line in enumerate(manifest.decode("utf-8", "replace").removesuffix("\n").split("\n"), 1):
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+?)\r?", line)
        if not match:
            raise MaskcastError(f"{where}: line {number} is no checksum; remove it and store the data again")
        if _is_data(match[2]):
            sums[match[2]] = match[1]
    return sums


def _hash(path: Path, function: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(function, usedforsecurity=False)).hexdigest()
