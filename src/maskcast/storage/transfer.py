"""What moves between stores: files, and the threads that move many of them and large ones in pieces."""

import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from maskcast.progress import track

T = TypeVar("T")

PIECE = 8 << 20  # bytes moved, counted and, after a failure, repeated at a time
WORKERS = 16


def num_pieces(size: int) -> int:
    """Returns how many pieces a file of `size` bytes counts as; an empty one counts as one."""
    return max(1, -(-size // PIECE))


@dataclass(frozen=True)
class Item:
    """A file in a store.

    Attributes:
        name: its path below the store's address, with slashes.
        source: where it lies: a key or a path.
        size: bytes.
        modified: seconds since 1970.
        etag: the version that S3 has of it.
        sha256: its line in the manifest.
    """

    name: str
    source: str
    size: int
    modified: float
    etag: str = ""
    sha256: str | None = None

    def is_at(self, target: Path) -> bool:
        """Tells whether an earlier run has put it there."""
        if not target.is_file():
            return False
        found = target.stat()
        return found.st_size == self.size and abs(found.st_mtime - self.modified) < 1


class Transfer:
    """The threads of one transfer: one pool for files, one for the pieces of all large files."""

    def __init__(self) -> None:
        self._files = ThreadPoolExecutor(WORKERS)
        self._pieces = ThreadPoolExecutor(WORKERS)
        self._events: queue.SimpleQueue[int | Future[None]] = queue.SimpleQueue()  # counts of pieces, ended jobs

    def run(self, jobs: Sequence[Callable[[], None]], description: str, pieces: int) -> None:
        """Runs one job per file with one bar over all pieces; the first error ends all."""
        try:
            for job in jobs:
                self._files.submit(job).add_done_callback(self._events.put)
            deque(track(self._moved(len(jobs)), description, pieces), maxlen=0)
        finally:
            self._files.shutdown(wait=False, cancel_futures=True)
            self._pieces.shutdown(cancel_futures=True)
            self._files.shutdown()

    def in_pieces(self, work: Callable[[int], T], numbers: Iterable[int]) -> list[T]:
        """Does `work` for the numbered pieces of one file, in parallel, and returns the results in order."""
        return [future.result() for future in [self._pieces.submit(work, number) for number in numbers]]

    def moved(self, pieces: int = 1) -> None:
        """Counts pieces as moved."""
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
        """Returns what lies below the address by name, or the one file that it names."""

    def has_above(self, name: str) -> bool:
        """Tells whether a file of this name lies at the address or above it."""

    def read(self, name: str) -> bytes | None:
        """Returns the content of a small file, or None if there is none."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a small file, whole or not at all."""

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""

    def fetch(self, item: Item, part: Path, transfer: Transfer) -> tuple[str, str] | None:
        """Brings the content of an item to `part`, with its time.

        Returns:
            The hash function and the checksum that the store knows the content by, if it does.
        """

    def put(self, item: Item, sha256: str, resume: bool, transfer: Transfer) -> None:
        """Stores a local file under its name, whole or not at all, unless the store has it already.

        Args:
            item: the local file.
            sha256: its checksum.
            resume: whether an earlier, broken upload was of the same content.
            transfer: where pieces are moved and counted.
        """

    def forget(self, names: Set[str]) -> None:
        """Drops what a broken `put` left of files half sent."""
