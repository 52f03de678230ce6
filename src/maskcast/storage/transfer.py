"""Files in transfer, and threads that transfer many files, large ones in pieces."""

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from maskcast.progress import track

T = TypeVar("T")

PIECE = 8 << 20  # bytes that are transferred, counted and, after an error, retried at once
WORKERS = 16


def num_pieces(size: int) -> int:
    """Returns the number of pieces of a file of `size` bytes; at least 1."""
    return max(1, -(-size // PIECE))


@dataclass(frozen=True)
class Item:
    """A file in a store.

    Attributes:
        name: path below the store's address, with slashes.
        source: its key or path.
        size: bytes.
        modified: seconds since 1970.
        etag: its version in S3.
        sha256: its checksum in the manifest.
    """

    name: str
    source: str
    size: int
    modified: float
    etag: str = ""
    sha256: str | None = None

    def is_at(self, target: Path) -> bool:
        """Whether an earlier run has placed the file there."""
        if not target.is_file():
            return False
        stat = target.stat()
        return stat.st_size == self.size and abs(stat.st_mtime - self.modified) < 1


class Transfer:
    """The threads of a transfer: one pool for files, one for pieces of large files."""

    def __init__(self) -> None:
        self._files = ThreadPoolExecutor(WORKERS)
        self._pieces = ThreadPoolExecutor(WORKERS)
        self._events: queue.SimpleQueue[int | Future[None]] = queue.SimpleQueue()  # piece counts, finished jobs

    def run(self, jobs: Sequence[Callable[[], None]], description: str, pieces: int) -> None:
        """Runs one job per file with one progress bar over all pieces; the first error stops all."""
        try:
            for job in jobs:
                self._files.submit(job).add_done_callback(self._events.put)
            deque(track(self._moved(len(jobs)), description, pieces), maxlen=0)
        finally:
            self._files.shutdown(wait=False, cancel_futures=True)
            self._pieces.shutdown(cancel_futures=True)
            self._files.shutdown()

    def in_pieces(self, work: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
        """Calls `work` for the numbered pieces of a file, in parallel; returns the results in order."""
        return [future.result() for future in [self._pieces.submit(work, number) for number in numbers]]

    def moved(self, pieces: int = 1) -> None:
        """Counts pieces as transferred."""
        self._events.put(pieces)

    def _moved(self, num_jobs: int) -> Iterator[None]:
        while num_jobs:
            event = self._events.get()
            if isinstance(event, int):
                yield from [None] * event
            else:
                event.result()
                num_jobs -= 1


class Store(Protocol):
    """Files below an address: a prefix of a bucket, or a folder."""

    def items(self) -> dict[str, Item]:
        """Returns the items below the address by name, or the single file that it names."""

    def has_above(self, name: str) -> bool:
        """Whether a file with this name is at the address or above it."""

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small file, or None if it does not exist."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file atomically."""

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""

    def fetch(self, item: Item, part: Path, transfer: Transfer) -> tuple[str, str] | None:
        """Writes the content of an item to `part`, with its modification time.

        Returns:
            Hash function and checksum of the content, if the store knows one.
        """

    def put(self, item: Item, sha256: str, resume: bool, transfer: Transfer) -> None:
        """Stores a local file under its name, atomically, unless the store has the same content.

        Args:
            item: the local file.
            sha256: its checksum.
            resume: whether an earlier, interrupted upload had the same content.
            transfer: runs and counts pieces.
        """

    def forget(self, names: Set[str]) -> None:
        """Removes incomplete files that an interrupted `put` left."""
