"""Reads tar archives that zstd compressed."""

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zstandard

from maskcast.data.archives.checks import TarMember

MAGIC = zstandard.FRAME_HEADER  # of a frame
SKIPPABLE = b"\x2a\x4d\x18"  # the last three bytes of the magic number of a frame without data, as pzstd writes
MAX_HEADER = 18  # bytes of a frame's header
RLE = 1  # type of a block that holds one byte, which is repeated


def is_zstd(path: Path) -> bool:
    """Whether a file is compressed by zstd, judged by its contents."""
    with path.open("rb") as file:
        head = file.read(4)
    return head == MAGIC or head[1:] == SKIPPABLE


@contextmanager
def open_zstd_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Opens a compressed tar for a single pass over its members.

    Raises:
        MemoryError: it needs more than 128 MiB of memory.
        tarfile.ReadError: it is no tar.
        zstandard.ZstdError: it is damaged.
    """
    decompressor = zstandard.ZstdDecompressor()
    with (
        path.open("rb") as file,
        decompressor.stream_reader(file, read_across_frames=True) as stream,
        _memory_errors(),
        tarfile.open(fileobj=stream, mode="r|", tarinfo=TarMember) as opened,
    ):
        yield opened


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except zstandard.ZstdError as error:
        raise MemoryError if "memory" in str(error) else error from error


def check_whole(path: Path) -> None:
    """Refuses a file that ends within a frame, which the decompressor would not tell from the end of the archive.

    It goes from block to block of all frames (RFC 8878, 3.1), and decompresses none.

    Raises:
        EOFError: the file ends too early.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while (start := file.tell()) < size:
            head = file.read(MAX_HEADER)
            if head[1:4] == SKIPPABLE:
                file.seek(start + 8 + int.from_bytes(head[4:8], "little"))
            else:
                file.seek(start + zstandard.frame_header_size(head))
                last = False
                while not last:
                    block = file.read(3)
                    if len(block) < 3:
                        raise EOFError("it ends too early")
                    bits = int.from_bytes(block, "little")
                    last = bool(bits & 1)
                    file.seek(1 if bits >> 1 & 3 == RLE else bits >> 3, 1)
                file.seek(4 * zstandard.get_frame_parameters(head).has_checksum, 1)
        if file.tell() > size:
            raise EOFError("it ends too early")
