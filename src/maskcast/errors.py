"""The exception for user errors, and helpers that turn other errors into it."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from maskcast.redaction import as_written

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages of PyTorch's writer, Rust libraries, NumPy and SQLite for a failed write.
SAID_OF_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (27|28|122)\b|database or disk is full"
    r"|PytorchStreamWriter failed|unexpected pos \d+ vs \d+|\d+ requested and \d+ written"
)
SAID_OF_MEMORY = re.compile(  # also for sizes that exceed any memory
    r"out of memory|Insufficient memory|[Cc]an(no|')t allocate memory|std::bad_alloc"
    r"|Storage size calculation overflowed|Overflow when unpacking|array is too big|Maximum allowed dimension"
)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
FEW_BYTES = 2**20  # if less is free, the disk counts as full
LONGEST = 1200  # maximum characters of an error message


class MaskcastError(Exception):
    """A user error or broken input, described in one line.

    The line names the file or key, the allowed values and the remedy. The command line prints it after ``error:``
    and exits with 2; no partial output remains.
    """


class PicturedError(MaskcastError):
    """An error that is best shown by a picture.

    Attributes:
        picture_HWC: uint8 RGB.
    """

    def __init__(self, text: str, picture_HWC: Any) -> None:
        super().__init__(text, picture_HWC)  # both in args, so that it can be pickled
        self.picture_HWC = picture_HWC

    def __str__(self) -> str:
        return str(self.args[0])


def one_line(error: BaseException, longest: int = LONGEST) -> str:
    """Returns an error's message as one line without secrets, shortened if it is too long."""
    text = " ".join(as_written(str(error)).split())
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 4 :]}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Turns a user error in a script into one line, instead of a traceback.

    A failed command of the script has already printed its own message.
    """
    from subprocess import CalledProcessError

    try:
        with user_errors_of_machine():
            yield
    except MaskcastError as error:
        raise SystemExit(f"error: {one_line(error)}") from None
    except CalledProcessError as error:
        command = " ".join(map(str, error.cmd[:4]))
        raise SystemExit(f"error: `{command}` failed (exit code {error.returncode}); see above") from None


@contextmanager
def user_errors_of_machine(*places: Path) -> Iterator[None]:
    """Turns disk and memory errors that a user can fix into a MaskcastError that names the path.

    Args:
        places: paths that the block writes, besides the working directory and temporary files. If the disk is full
            and the error has no path, as for most libraries, the full one of these is named.
    """
    try:
        yield
    except MaskcastError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise MaskcastError(
                f"{_full_path(error, places)}: no space left on the device; free some and run the same command "
                "again"
            ) from error
        if is_memory_full(error):
            raise MaskcastError(
                f"not enough memory ({first_line(error)}); lower the batch size, or the sizes of model and frames"
            ) from error
        if isinstance(error, OSError) and error.errno in UNUSABLE:
            place = f"{named}: " if (named := _path_of(error)) else ""
            raise MaskcastError(
                f"{place}cannot be written or read ({error.strerror}); choose another path or fix its rights"
            ) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that a disk, quota or file is full.

    PyTorch, safetensors and databases say so only in their messages.
    """
    return any(
        getattr(each, "errno", None) in FULL or (isinstance(each, Exception) and SAID_OF_FULL.search(str(each)))
        for each in chain_of(error)
    )


def is_memory_full(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that memory ran out.

    PyTorch and OpenCV say so only in their messages.
    """
    return any(
        isinstance(each, MemoryError) or (isinstance(each, Exception) and SAID_OF_MEMORY.search(str(each)))
        for each in chain_of(error)
    )


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _full_path(error: BaseException, places: Sequence[Path]) -> str:
    """Returns the path in an error or its causes, else the place with the least free space."""
    for each in chain_of(error):
        if getattr(each, "errno", None) in FULL and (named := _path_of(each)):
            return named
    candidates = [*places, Path.cwd(), Path(tempfile.gettempdir())]
    there = [next(up for up in (place, *place.absolute().parents) if up.exists()) for place in candidates]
    full = [place for place, folder in zip(candidates, there, strict=True) if _room(folder) < FEW_BYTES]
    return str((full or candidates)[0])


def _path_of(error: BaseException) -> str:
    """Returns the path in an error, or an empty text."""
    named = getattr(error, "filename", None)
    return "" if named is None else os.fsdecode(named).removeprefix("file:")  # the prefix that FFmpeg is given


def _room(folder: Path) -> int:
    try:
        about = os.statvfs(folder)
    except OSError:
        return FEW_BYTES
    return 0 if about.f_files and not about.f_favail else about.f_bavail * about.f_frsize
