"""A prefix of an S3 bucket as a store: the only module that imports boto3.

Endpoint, region and credentials come only from the environment (`AWS_ENDPOINT_URL_S3`, `AWS_REGION`,
`AWS_ACCESS_KEY_ID`, ...). boto3 retries requests that fail before a response (connections, timeouts, 5xx,
SlowDown) with growing random delays. `_get` does the same for a response body that breaks off or stalls.
"""

import base64
import hashlib
import os
import random
import re
import time
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from maskcast.errors import MaskcastError
from maskcast.progress import log_if_slow
from maskcast.redaction import has_user
from maskcast.storage.s3_errors import RESUMES, error_message
from maskcast.storage.transfer import PIECE, WORKERS, Item, Transfer, num_pieces

ATTEMPTS = 5
TIMEOUT_S = 30  # seconds without data
MAX_PARTS = 10_000  # S3's limit per multipart upload
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")  # in the order of boto3's
_random = random.SystemRandom()  # independent of the seeded generator


@contextmanager
def open_bucket(uri: str) -> Iterator["Bucket"]:
    """Yields the store at `s3://bucket/prefix`; errors of S3 inside the block become one line.

    Raises:
        MaskcastError: names the address, and the variable, file, permission or object to correct (see
            ``s3_errors``).
    """
    match = re.fullmatch(r"s3://([^/]+)/?(.*?)/?", uri)
    if not match:
        raise MaskcastError(f"{uri}: not an S3 address; write s3://bucket/prefix")
    import boto3
    import botocore.exceptions as problems
    from botocore.config import Config

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and has_user(endpoint):
        raise MaskcastError(
            "AWS_ENDPOINT_URL_S3: contains a user or password; set it to http(s)://host:port, and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    config = Config(
        connect_timeout=10,
        read_timeout=TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=2 * WORKERS,
        request_checksum_calculation="when_required",  # bodies are sent with an MD5, which old servers check, too
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else {},  # few self-hosted servers resolve bucket.host
    )
    try:
        region = os.environ.get("AWS_REGION")  # boto3 itself reads only AWS_DEFAULT_REGION
        session = boto3.session.Session(region_name=region)
        client = session.client("s3", config=config)
        credentials = session.get_credentials()
        # May run a program or a login that the profile names.
        frozen = credentials.get_frozen_credentials() if credentials else ()
    except (problems.BotoCoreError, OSError, ValueError) as error:
        raise MaskcastError(f"{uri}: {error_message(error, match[1])}") from None
    for name, value in zip(CREDENTIALS, frozen, strict=False):
        if value and re.search(r"\s", value):  # e.g. from `echo`; errors about bad headers would show the secret
            raise MaskcastError(f"{uri}: {name} contains whitespace; remove it there or in the profile")
    try:
        yield Bucket(client, uri, match[1], match[2])
    except (problems.ClientError, problems.BotoCoreError, RecursionError) as error:
        raise MaskcastError(f"{uri}: {error_message(error, match[1])}") from error
    finally:
        client.close()


def has_credentials() -> bool:
    """Whether boto3 finds credentials; True also where it cannot tell, as the access itself says what is wrong."""
    import boto3
    import botocore.exceptions as problems

    try:
        return boto3.Session().get_credentials() is not None
    except problems.BotoCoreError:
        return True


class Bucket:
    """The objects of a bucket below a prefix (see `Store`)."""

    def __init__(self, client: Any, uri: str, bucket: str, prefix: str) -> None:
        self._client, self._uri, self._bucket, self._prefix = client, uri, bucket, prefix
        self._folder = f"{prefix}/" if prefix else ""

    def items(self) -> dict[str, Item]:
        """Returns the objects below the prefix by name, or the single object that it names."""
        items = {}
        with log_if_slow(f"the list of objects in {self._uri}"):
            objects = [
                entry
                for page in self._pages("list_objects_v2", Prefix=self._folder)
                for entry in page.get("Contents", [])
            ]
        for entry in objects:
            if not entry["Key"].endswith("/"):
                name = entry["Key"].removeprefix(self._folder)
                items[name] = self._item(name, entry["Key"], entry["Size"], entry)
        if not items and self._prefix and (head := self._head(self._prefix)):
            name = PurePosixPath(self._prefix).name
            items[name] = self._item(name, self._prefix, head["ContentLength"], head)
        if not items:
            raise MaskcastError(f"{self._uri}: no objects found; fix the address")
        return items

    def has_above(self, name: str) -> bool:
        """Whether an object with this name is at the prefix or above it."""
        parts = self._prefix.split("/") if self._prefix else []
        absent = ("404", "NoSuchKey", "403", "AccessDenied")  # permissions may cover the prefix only
        return any(self._head("/".join([*parts[:depth], name]), absent) for depth in range(len(parts) + 1))

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small object, or None if it does not exist."""
        if not (head := self._head(self._folder + name)):
            return None
        body, _ = self._get(self._folder + name, head["ContentLength"], IfMatch=head["ETag"])
        return body

    def write(self, name: str, content: bytes) -> None:
        """Writes a small object."""
        self._send(self._client.put_object, content, Key=self._folder + name)

    def remove(self, name: str) -> None:
        """Removes an object, if it exists."""
        self._client.delete_object(Bucket=self._bucket, Key=self._folder + name)

    def fetch(self, item: Item, part: Path, transfer: Transfer) -> tuple[str, str] | None:
        """Downloads an object to `part` (a large one in pieces) and returns its checksum, if known."""
        if item.size <= PIECE:
            body, response = self._get(item.source, item.size, IfMatch=item.etag)
            part.write_bytes(body)
            transfer.moved()
        else:
            response = self._client.head_object(Bucket=self._bucket, Key=item.source, IfMatch=item.etag)
            self._fetch_pieces(item, part, transfer)
        os.utime(part, (item.modified, item.modified))
        return _checksum(response)

    def put(self, item: Item, sha256: str, resume: bool, transfer: Transfer) -> None:
        """Uploads a file (a large one in parts), unless an object with the same content exists."""
        key = self._folder + item.name
        if self._has_content(key, sha256):
            transfer.moved(num_pieces(item.size))
        elif item.size <= PIECE:
            content = Path(item.source).read_bytes()
            self._send(self._client.put_object, content, Key=key, Metadata={"sha256": sha256})
            transfer.moved()
        else:
            self._put_pieces(item, key, sha256, resume, transfer)

    def forget(self, names: Set[str]) -> None:
        """Aborts incomplete multipart uploads."""
        for upload in self._uploads(self._folder) if names else []:
            if upload["Key"].removeprefix(self._folder) in names:
                self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    def _item(self, name: str, key: str, size: int, response: dict[str, Any]) -> Item:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != name:
            raise MaskcastError(f"{self._uri}: object key {key!r} is not a valid file path; rename it")
        return Item(name, key, size, response["LastModified"].timestamp(), response["ETag"])

    def _pages(self, operation: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        yield from self._client.get_paginator(operation).paginate(Bucket=self._bucket, **arguments)

    def _head(self, key: str, absent: Sequence[str] = ("404", "NoSuchKey")) -> dict[str, Any] | None:
        try:
            head: dict[str, Any] = self._client.head_object(Bucket=self._bucket, Key=key)
        except self._client.exceptions.ClientError as error:
            if error.response["Error"]["Code"] in absent:
                return None
            raise
        if not {"ETag", "LastModified"} <= head.keys():  # a response of a plain web server
            response = {"Error": {"Code": ""}, "ResponseMetadata": head["ResponseMetadata"]}
            raise self._client.exceptions.ClientError(response, "HeadObject")
        return head

    def _has_content(self, key: str, sha256: str) -> bool:
        head = self._head(key)
        return head is not None and head["Metadata"].get("sha256") == sha256

    def _get(self, key: str, length: int, **options: str) -> tuple[bytes, dict[str, Any]]:
        """Returns `length` bytes of an object, complete, and the response."""
        import botocore.exceptions as problems

        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(_random.uniform(0, 2 ** (attempt - 1)))
            response = self._client.get_object(Bucket=self._bucket, Key=key, **options)
            try:
                body = response["Body"].read()
            except (problems.HTTPClientError, problems.IncompleteReadError) as error:
                reason = str(error)
                continue
            finally:
                response["Body"].close()
            if len(body) == length:
                return body, response
            reason = f"{len(body)} of {length} bytes"
        raise MaskcastError(f"{self._uri}: download of {key!r} failed {ATTEMPTS} times ({reason}); {RESUMES}")

    def _fetch_pieces(self, item: Item, part: Path, transfer: Transfer) -> None:
        """Fills `part`; until it is complete, it ends with one byte per piece, set once the piece is written."""
        count = num_pieces(item.size)
        size = part.stat().st_size if part.exists() else 0
        if size == item.size:
            transfer.moved(count)
            return
        with part.open("r+b" if size == item.size + count else "w+b") as file:
            file.truncate(item.size + count)
            file.seek(item.size)
            written = file.read()

        def fetch_piece(number: int) -> None:
            start = number * PIECE
            stop = min(start + PIECE, item.size)
            if not written[number]:
                body, _ = self._get(
                    item.source, stop - start, IfMatch=item.etag, Range=f"bytes={start}-{stop - 1}"
                )
                with part.open("r+b") as file:
                    file.seek(start)
                    file.write(body)
                    file.seek(item.size + number)
                    file.write(b"\1")
            transfer.moved()

        transfer.in_pieces(fetch_piece, range(count))
        os.truncate(part, item.size)

    def _put_pieces(self, item: Item, key: str, sha256: str, resume: bool, transfer: Transfer) -> None:
        """Uploads a large file in parts, except those that an interrupted upload of the same content has sent."""
        begun = [each["UploadId"] for each in self._uploads(key) if each["Key"] == key] if resume else []
        if begun:
            upload_id = begun[-1]
        else:
            created = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, Metadata={"sha256": sha256}
            )
            upload_id = created["UploadId"]
        try:
            self._put_parts(item, {"Key": key, "UploadId": upload_id}, bool(begun), transfer)
        except self._client.exceptions.NoSuchUpload:
            # Complete: the response was lost, or another process has continued the same upload and ended it.
            if not self._has_content(key, sha256):
                raise

    def _put_parts(self, item: Item, upload: dict[str, str], resume: bool, transfer: Transfer) -> None:
        pages = self._pages("list_parts", **upload) if resume else ()
        sent = {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", [])}
        length = max(PIECE, -(-item.size // MAX_PARTS))

        def put_part(number: int) -> dict[str, Any]:
            with open(item.source, "rb") as file:
                file.seek((number - 1) * length)
                body = file.read(length)
            etag = sent.get(number)
            if etag is None or etag.strip('"') != _md5(body).hexdigest():
                etag = self._send(self._client.upload_part, body, PartNumber=number, **upload)["ETag"]
            transfer.moved()
            return {"PartNumber": number, "ETag": etag}

        parts = transfer.in_pieces(put_part, range(1, -(-item.size // length) + 1))
        self._client.complete_multipart_upload(Bucket=self._bucket, MultipartUpload={"Parts": parts}, **upload)

    def _send(self, operation: Any, body: bytes, **arguments: Any) -> dict[str, Any]:
        md5 = base64.b64encode(_md5(body).digest()).decode()
        return operation(Bucket=self._bucket, Body=body, ContentMD5=md5, **arguments)

    def _uploads(self, prefix: str) -> list[dict[str, Any]]:
        """Returns the unfinished multipart uploads, oldest first."""
        pages = self._pages("list_multipart_uploads", Prefix=prefix)
        return sorted(
            (upload for page in pages for upload in page.get("Uploads", [])),
            key=lambda upload: upload["Initiated"],
        )


def _md5(body: bytes) -> Any:
    return hashlib.md5(body, usedforsecurity=False)


def _checksum(response: dict[str, Any]) -> tuple[str, str] | None:
    """Returns the checksum of an object: the one that `put` stored, or an ETag that is an MD5.

    A sha256 that other tools store in other forms, for example base64, is ignored.
    """
    sha256 = response["Metadata"].get("sha256", "")
    if re.fullmatch(r"[0-9a-f]{64}", sha256):
        return "sha256", sha256
    etag = response["ETag"].strip('"')
    encrypted = response.get("ServerSideEncryption", "AES256") != "AES256" or "SSECustomerAlgorithm" in response
    if encrypted or not re.fullmatch(
        r"[0-9a-f]{32}", etag
    ):  # these ETags and those of multipart uploads are no MD5
        return None
    return "md5", etag
