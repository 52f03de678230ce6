"""Checks of archive members before they are unpacked, and errors of one line each."""

import errno
import shutil
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from maskcast.errors import MaskcastError
from maskcast.files import tree_files
from maskcast.progress import say
from maskcast.reading import format_bytes, reason_of, short_repr

MAX_RATIO = 200  # unpacked bytes per packed byte; label images reach about 100
MIN_CHECKED_BYTES = 100 << 20  # bytes that may be unpacked at any ratio
MAX_SHOWN = 60  # characters shown of a too long name
_TAR_SUFFIXES = {".tar", ".tgz", ".gz", ".tbz", ".tbz2", ".bz2", ".txz", ".xz", ".tzst", ".zst"}
ARCHIVE_SUFFIXES = frozenset(
    _TAR_SUFFIXES | {".zip", ".z01", ".7z", ".rar", ".lz", ".lz4", ".lzma"}
)  # some not read
HEADER_TYPES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, b"x", b"g", b"X")  # the last three are of pax
MAX_HEADER = 1 << 20  # maximum bytes of a long name or pax header, which is read into memory


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive."""

    name: str
    packed: int  # bytes in the archive; of the whole archive if its members are compressed together
    size: int  # bytes when unpacked
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


def check_member(archive: Path, member: Member, folder: Path, written: int) -> None:
    """Refuses a suspicious member before it is unpacked; unpacking stops at the size that a member declares."""
    for unpacked, packed in ((member.size, member.packed), (written + member.size, archive.stat().st_size)):
        if unpacked > MIN_CHECKED_BYTES and unpacked > MAX_RATIO * max(packed, 1):
            raise MaskcastError(
                f"{archive}: member {member.name!r} would unpack to more than {MAX_RATIO} times its packed size, "
                "like a zip bomb; if you trust it, unpack it yourself and give the folder"
            )
    check_disk(archive, member.size, folder)


def check_disk(archive: Path, size: int, folder: Path) -> None:
    """Refuses more bytes than are free on the disk."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise MaskcastError(
            f"{archive}: needs {format_bytes(size)} at {folder} but only {format_bytes(free)} are free; free some "
            "space"
        )


def check_contents(archive: Path, folder: Path) -> None:
    """Refuses an archive without files, or with only archives; archives among other files are reported."""
    files = tree_files(folder)
    if not files:
        raise MaskcastError(f"{archive}: contains no files; pack the data set again")
    inner = [path for path in files if path.suffix.lower() in ARCHIVE_SUFFIXES]
    if not inner:
        return
    what = f"{inner[0].relative_to(folder).as_posix()!r}" + (f" and {len(inner) - 1} more" * (len(inner) > 1))
    if len(inner) == len(files):
        raise MaskcastError(f"{archive}: contains only the archive {what}; unpack it and give its contents")
    say(f"{archive}: archives inside it are not unpacked: {what}")


def link_error(archive: Path, name: str) -> MaskcastError:
    """Returns the error for a member that is neither file nor folder."""
    return MaskcastError(
        f"{archive}: member {name!r} is a link or device; pack the files themselves (tar -h, zip)"
    )


class TarMember(tarfile.TarInfo):
    """A member of a tar; refuses invalid sizes, and long names or headers that would fill the memory."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str | None, errors: str) -> Self:  # type: ignore[override]
        """Parses the header of a member."""
        found = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        if found.size < 0 or (found.type in HEADER_TYPES and found.size > MAX_HEADER):
            raise tarfile.ReadError(f"a head of {found.size} bytes")
        return found


@contextmanager
def write_errors(archive: Path, member: str) -> Iterator[None]:
    """Turns errors of the file system about a member's name into one line."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        problem = "occurs twice, or is a file in one place and a folder in another"
        raise MaskcastError(f"{archive}: member {member!r} {problem}; pack the archive again") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        short = member if len(member) <= MAX_SHOWN else f"{member[:MAX_SHOWN]}..."
        raise MaskcastError(
            f"{archive}: member {short!r} cannot be written ({reason}); rename it and pack the archive again"
        ) from error


@contextmanager
def read_errors(archive: Path, member: str | None = None) -> Iterator[None]:
    """Turns errors of decoders about damage into one line."""
    try:
        yield
    except MaskcastError:
        raise
    except OSError as error:
        if error.errno == errno.EINVAL:  # seek before the start of the file: the beginning is missing
            raise MaskcastError(
                f"{archive}: is damaged, its beginning is missing; copy it again from its origin"
            ) from error
        raise MaskcastError(f"{archive}: cannot be unpacked ({error.strerror}); check the disk") from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile's errors for unsupported compression methods
        raise MaskcastError(f"{archive}: cannot be unpacked here ({error}); pack it again with deflate") from error
    except MemoryError:  # LZMA allocates a dictionary of the size in its header
        raise MaskcastError(f"{archive}: needs too much memory; pack it again with deflate") from None
    except Exception as error:
        place = f"{archive}: member {short_repr(member)}" if member else f"{archive}"
        why = reason_of(error)
        raise MaskcastError(f"{place} is damaged ({why}); copy the archive again from its origin") from error
