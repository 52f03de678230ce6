"""The one exception that users are meant to see."""

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
# What PyTorch's writer, libraries in Rust, NumPy and SQLite say of a write that was cut.
SAID_OF_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (27|28|122)\b|database or disk is full"
    r"|PytorchStreamWriter failed|unexpected pos \d+ vs \d+|\d+ requested and \d+ written"
)
SAID_OF_MEMORY = re.compile(  # of sizes that no memory could have, too
    r"out of memory|Insufficient memory|[Cc]an(no|')t allocate memory|std::bad_alloc"
    r"|Storage size calculation overflowed|Overflow when unpacking|array is too big|Maximum allowed dimension"
)
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG)
FEW_BYTES = 2**20  # what is left of a disk on which a write has failed
LONGEST = 1200  # characters of an error's line


class MaskcastError(Exception):
    """A user's mistake or a broken input, said in one line.

    The line names the file or the key, what is allowed, and the remedy. The command line prints it after
    ``error:`` and exits with 2; nothing is left behind.
    """


class PicturedError(MaskcastError):
    """A mistake that a picture shows better than words.

    Attributes:
        picture_HWC: uint8 RGB.
    """

    def __init__(self, text: str, picture_HWC: Any) -> None:
        super().__init__(text, picture_HWC)  # both are args, so that it can be pickled
        self.picture_HWC = picture_HWC

    def __str__(self) -> str:
        return str(self.args[0])


def one_line(error: BaseException, longest: int = LONGEST) -> str:
    """Returns what an error says as one line, without secrets, and shortened where a value has made it long."""
    text = " ".join(as_written(str(error)).split())
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 4 :]}"


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says, or its type where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def mistakes_in_one_line() -> Iterator[None]:
    """Ends a script, where a user's mistake stops it, with the line that says so in the place of a traceback.

    A command that it runs has said its own.
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
    """Turns errors of disk and memory that a user can mend into a MaskcastError, which names a path at fault.

    Args:
        places: what the block writes, besides the working directory and temporary files; of a full disk whose path
            the error does not tell, as those of most libraries do, the place that is full is named.
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
                f"{place}cannot be written or read ({error.strerror}); choose another path or mend its rights"
            ) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Tells whether an error, or what it came from, says that a disk, a quota or a file may hold no more.

    PyTorch, safetensors and databases say it in words alone.
    """
    return any(
        getattr(each, "errno", None) in FULL or (isinstance(each, Exception) and SAID_OF_FULL.search(str(each)))
        for each in chain_of(error)
    )


def is_memory_full(error: BaseException) -> bool:
    """Tells whether an error, or what it came from, says that there is no more memory.

    PyTorch and OpenCV say it in words alone.
    """
    return any(
        isinstance(each, MemoryError) or (isinstance(each, Exception) and SAID_OF_MEMORY.search(str(each)))
        for each in chain_of(error)
    )


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and what it came from."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _full_path(error: BaseException, places: Sequence[Path]) -> str:
    """Returns the path that an error names, else the place with the least room."""
    for each in chain_of(error):
        if getattr(each, "errno", None) in FULL and (named := _path_of(each)):
            return named
    candidates = [*places, Path.cwd(), Path(tempfile.gettempdir())]
    there = [next(up for up in (place, *place.absolute().parents) if up.exists()) for place in candidates]
    full = [place for place, folder in zip(candidates, there, strict=True) if _room(folder) < FEW_BYTES]
    return str((full or candidates)[0])


def _path_of(error: BaseException) -> str:
    """Returns the path that an error names, or nothing."""
    named = getattr(error, "filename", None)
    return "" if named is None else os.fsdecode(named).removeprefix("file:")  # so FFmpeg is told of paths


def _room(folder: Path) -> int:
    try:
        about = os.statvfs(folder)
    except OSError:
        return FEW_BYTES
    return 0 if about.f_files and not about.f_favail else about.f_bavail * about.f_frsize
