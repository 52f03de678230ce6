"""Moves files between this machine and S3: the only module that imports boto3.

Endpoint, region and credentials come from the environment alone (`AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`, ...).
`put` writes `SHA256SUMS` last, as `sha256sum` would; a prefix that has one is fetched exactly as it lists. While a
`put` is under way the prefix holds `SHA256SUMS.incomplete`, and `fetch` refuses it.
"""

import hashlib
import os
import queue
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from maskcast.data.clips import sha256_of
from maskcast.errors import MaskcastError
from maskcast.progress import track

MANIFEST = "SHA256SUMS"
INCOMPLETE = "SHA256SUMS.incomplete"
CHUNK = 8 << 20  # bytes read, written and counted at a time
CONNECTIONS = 16


def _chunks(size: int) -> int:
    return -(-size // CHUNK)


@dataclass(frozen=True)
class _Object:
    """An object and where it goes below the destination; `modified` in seconds since 1970."""

    key: str
    relative: str
    size: int
    etag: str
    modified: float
    sha256: str | None = None

    def is_complete(self, target: Path) -> bool:
        if not target.is_file():
            return False
        found = target.stat()
        return found.st_size == self.size and abs(found.st_mtime - self.modified) < 1


def fetch(uri: str, destination: Path) -> list[Path]:
    """Downloads `s3://bucket/prefix` (all below it) or `s3://bucket/key` (one object) into a folder.

    A file of the same size and modification time as its object is not fetched again, and a broken transfer goes on
    where it ended. Each file gets its name once its checksum is right: its line in `SHA256SUMS`, the sha256 that
    `put` stored with the object, or an MD5 ETag; without any of them its size.

    Returns:
        The files, in the order of their keys.

    Raises:
        MaskcastError: naming the object or the remedy, when something is missing, differs or cannot be reached.
    """
    with _bucket(uri) as (bucket, prefix):
        objects = bucket.objects(prefix)
        parts = destination / ".parts"
        parts.mkdir(parents=True, exist_ok=True)
        jobs = [partial(bucket.fetch, item, destination / item.relative, parts) for item in objects]
        bucket.run(jobs, f"fetching {uri} (8 MiB pieces)", sum(_chunks(item.size) for item in objects))
        shutil.rmtree(parts)
    return [destination / item.relative for item in objects]


def put(path: Path, uri: str) -> None:
    """Uploads a file or all files of a folder below `s3://bucket/prefix`, then their `SHA256SUMS`.

    Objects that already hold the same bytes (by the sha256 stored with them) are not sent again.

    Raises:
        MaskcastError: when there is nothing to upload or the bucket cannot be written.
    """
    names = {*_walk(path)} - {MANIFEST, INCOMPLETE}
    files = {path.name: path} if path.is_file() else {name: path / name for name in sorted(names)}
    if not files:
        raise MaskcastError(f"{path}: no files to upload; give a file or a folder that has some")
    with _bucket(uri) as (bucket, prefix):
        folder = f"{prefix}/" if prefix else ""
        bucket.client.put_object(Bucket=bucket.name, Key=folder + INCOMPLETE, Body=b"")
        bucket.client.delete_object(Bucket=bucket.name, Key=folder + MANIFEST)
        digests = {name: sha256_of(file) for name, file in files.items()}
        jobs = [partial(bucket.put, file, folder + name, digests[name]) for name, file in files.items()]
        total = sum(_chunks(file.stat().st_size) for file in files.values())
        bucket.run(jobs, f"uploading to {uri} (8 MiB pieces)", total)
        bucket.client.put_object(Bucket=bucket.name, Key=folder + MANIFEST, Body=_sums(digests).encode())
        bucket.client.delete_object(Bucket=bucket.name, Key=folder + INCOMPLETE)


def _walk(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def _sums(digests: dict[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


@contextmanager
def _bucket(uri: str) -> Iterator[tuple["_Bucket", str]]:
    """Yields the bucket and the prefix of a URI; what fails inside the block becomes one line."""
    match = re.fullmatch(r"s3://([^/]+)/?(.*?)/?", uri)
    if not match:
        raise MaskcastError(f"{uri}: not an S3 address; write s3://bucket/prefix")
    import boto3
    import botocore.exceptions as problems
    from botocore.config import Config

    own = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    config = Config(
        connect_timeout=10,
        read_timeout=60,
        retries={"total_max_attempts": 4, "mode": "standard"},
        max_pool_connections=CONNECTIONS,
        s3={"addressing_style": "path"} if own else {},  # few servers of one's own resolve bucket.host
    )
    try:
        client = boto3.session.Session().client("s3", config=config)
    except ValueError as error:
        raise MaskcastError(f"{uri}: {error}; write AWS_ENDPOINT_URL_S3 as http(s)://host:port") from None
    try:
        yield _Bucket(client, match[1], uri), match[2]
    except problems.ClientError as error:
        raise MaskcastError(f"{uri}: {_refusal(error.response.get('Error', {}), match[1])}") from error
    except (problems.NoCredentialsError, problems.PartialCredentialsError) as error:
        raise MaskcastError(f"{uri}: no S3 credentials; set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY") from error
    except problems.BotoCoreError as error:
        place = own or "AWS (AWS_ENDPOINT_URL_S3 is not set)"
        raise MaskcastError(f"{uri}: {place} cannot be reached ({error}); mend AWS_ENDPOINT_URL_S3") from error
    finally:
        client.close()


def _refusal(error: dict[str, str], bucket: str) -> str:
    code = error.get("Code", "unknown error")
    if code == "NoSuchBucket":
        return f"there is no bucket {bucket!r}; create it or mend the address"
    if code in ("NoSuchKey", "404"):
        return "an object vanished during the transfer; run the same command again"
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "403", "ExpiredToken"):
        return f"access refused ({code}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and their rights"
    return f"the server answered {code}: {error.get('Message', '')}; run the same command again"


class _Bucket:
    """One bucket during one transfer."""

    def __init__(self, client: Any, name: str, uri: str) -> None:
        self.client, self.name, self.uri = client, name, uri
        self._done: queue.SimpleQueue[int | Future[None]] = queue.SimpleQueue()  # a 1 per chunk, ended jobs
        self._stop = threading.Event()

    def run(self, jobs: Sequence[Callable[[], None]], description: str, chunks: int) -> None:
        """Runs the jobs in threads with one bar over all chunks; the first error ends all."""
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for job in jobs:
                pool.submit(job).add_done_callback(self._done.put)
            try:
                deque(track(self._until_done(len(jobs)), description, chunks), maxlen=0)
            finally:
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def _until_done(self, num_jobs: int) -> Iterator[int]:
        while num_jobs:
            event = self._done.get()
            if isinstance(event, int):
                yield event
            else:
                event.result()
                num_jobs -= 1

    def objects(self, prefix: str) -> list[_Object]:
        """Returns the objects below a prefix (those that its manifest lists, if it has one) or the one object."""
        folder = f"{prefix}/" if prefix else ""
        found: dict[str, _Object] = {}
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=folder):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    name = item["Key"].removeprefix(folder)
                    found[name] = self._object(item["Key"], name, item["Size"], item)
        if INCOMPLETE in found:
            raise MaskcastError(f"{self.uri}: an upload to it did not finish; upload it again")
        if MANIFEST in found:
            return self._listed(found)
        if not found and prefix and (head := self._head(prefix)):
            return [self._object(prefix, PurePosixPath(prefix).name, head["ContentLength"], head)]
        if not found:
            raise MaskcastError(f"{self.uri}: holds no objects; mend the address")
        return [found[name] for name in sorted(found)]

    def _object(self, key: str, relative: str, size: int, item: dict[str, Any]) -> _Object:
        path = PurePosixPath(relative)
        if path.is_absolute() or ".." in path.parts:
            raise MaskcastError(f"{self.uri}: object {key!r} would be written outside the folder; rename it")
        return _Object(key, relative, size, item["ETag"].strip('"'), item["LastModified"].timestamp())

    def _listed(self, found: dict[str, _Object]) -> list[_Object]:
        body = self.client.get_object(Bucket=self.name, Key=found[MANIFEST].key)["Body"].read()
        objects = []
        for number, line in enumerate(body.decode("utf-8", "replace").splitlines(), 1):
            match = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(.+)", line)
            if not match:
                raise MaskcastError(f"{self.uri}/{MANIFEST}: line {number} is no checksum; upload the data again")
            if match[2] not in found:
                raise MaskcastError(f"{self.uri}: {match[2]!r} of {MANIFEST} is missing; upload the data again")
            objects.append(replace(found[match[2]], sha256=match[1]))
        return sorted(objects, key=lambda item: item.relative)

    def _head(self, key: str) -> dict[str, Any] | None:
        import botocore.exceptions as problems

        try:
            return self.client.head_object(Bucket=self.name, Key=key)
        except problems.ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise

    def fetch(self, item: _Object, target: Path, parts: Path) -> None:
        """Downloads one object under a temporary name, checks it and renames it."""
        import botocore.exceptions as problems

        if item.is_complete(target):
            return
        part = parts / hashlib.sha256(f"{item.key} {item.etag} {item.size}".encode()).hexdigest()[:32]
        for pause in (1, 2, 4, None):
            try:
                stored = self._download(item, part)
                break
            except (problems.HTTPClientError, problems.IncompleteReadError):
                if pause is None:
                    raise
                self._stop.wait(pause)
        if self._stop.is_set():
            return
        if _differs(part, item, item.sha256 or stored):
            part.unlink()
            raise MaskcastError(f"{self.uri}: {item.key!r} differs from its checksum; upload it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        part.rename(target)
        os.utime(target, (item.modified, item.modified))

    def _download(self, item: _Object, part: Path) -> str | None:
        """Appends to `part` what it lacks (at least a byte) and returns the sha256 stored with the object."""
        part.touch()
        start = min(part.stat().st_size, max(item.size - 1, 0))
        wanted = {"Range": f"bytes={start}-"} if start else {}
        answer = self.client.get_object(Bucket=self.name, Key=item.key, IfMatch=item.etag, **wanted)
        with part.open("r+b") as file:
            file.seek(start)
            for chunk in answer["Body"].iter_chunks(CHUNK):
                if self._stop.is_set():
                    break
                file.write(chunk)
                self._done.put(1)
        return answer["Metadata"].get("sha256")

    def put(self, file: Path, key: str, sha256: str) -> None:
        """Uploads one file unless the bucket holds it already."""
        size = file.stat().st_size
        stored = self._head(key)
        same = stored and stored["ContentLength"] == size and stored["Metadata"].get("sha256") == sha256
        if same or self._stop.is_set():
            return
        self.client.upload_file(str(file), self.name, key, ExtraArgs={"Metadata": {"sha256": sha256}})
        for _ in range(_chunks(size)):
            self._done.put(1)


def _differs(part: Path, item: _Object, sha256: str | None) -> bool:
    if part.stat().st_size != item.size:
        return True
    if sha256 is not None:
        return sha256_of(part) != sha256
    if not re.fullmatch(r"[0-9a-f]{32}", item.etag):  # sent in pieces or encrypted by the server: no MD5
        return False
    with part.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != item.etag
