"""The exception for user errors, and helpers that turn other errors into it."""

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

from maskcast.redaction import printable

DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Messages of PyTorch's writer, Rust libraries, NumPy and SQLite for a failed write.
DISK_FULL_MESSAGES = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|os error (27|28|122)\b|database or disk is full"
    r"|PytorchStreamWriter failed|unexpected pos \d+ vs \d+|\d+ requested and \d+ written"
)
OUT_OF_MEMORY_MESSAGES = re.compile(  # also for sizes that exceed any memory
    r"out of memory|Insufficient memory|[Cc]an(no|')t allocate memory|std::bad_alloc"
    r"|Storage size calculation overflowed|Overflow when unpacking|array is too big|Maximum allowed dimension"
)
# Errors of the machine, which are no bugs even if they have no path.
MACHINE_ERRNOS = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.ENOLCK)
CHECK_DISK = "check the disk or mount, and run the same command again"
REMEDIES = {
    errno.EMFILE: "raise the limit of open files (`ulimit -n 65536`), and run the same command again",
    errno.ENFILE: "this machine has too many open files: end other programs, and run the same command again",
    errno.ENOENT: "it may have been removed meanwhile: restore it, or choose another path",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOLCK, errno.ETIMEDOUT), CHECK_DISK),
}
MIN_FREE_BYTES = 2**20  # if less is free, the disk counts as full
MAX_CHARS = 1200  # maximum characters of an error message


class MaskcastError(Exception):
    """A user error or broken input, described in one line.

    The line names the file or key, the allowed values and the remedy. The command line prints it after ``error:``
    and exits with 2; no partial output remains.
    """


class IllustratedError(MaskcastError):
    """An error that is best shown by a picture.

    Attributes:
        picture_HWC: uint8 RGB.
    """

    def __init__(self, text: str, picture_HWC: Any) -> None:
        super().__init__(text, picture_HWC)  # both in args, so that it can be pickled
        self.picture_HWC = picture_HWC

    def __str__(self) -> str:
        return str(self.args[0])


def one_line(error: BaseException, longest: int = MAX_CHARS) -> str:
    """Returns an error's message as one line without secrets, shortened if it is too long.

    The message of an error whose text is a tuple with its cause, as of a lost connection, is that of the cause.
    """
    while error.args and isinstance(cause := error.args[-1], Exception):
        if str(error) not in (str(error.args), str(cause)) or not str(cause):
            break
        error = cause
    text = " ".join(printable(str(error)).split())
    return text if len(text) <= longest else f"{text[: longest // 2]} ... {text[-longest // 4 :]}"


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if it has no message."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turns a user error in a script into one line, instead of a traceback.

    A failed command of the script has already printed its own message.
    """
    from subprocess import CalledProcessError

    try:
        with convert_system_errors():
            yield
    except MaskcastError as error:
        raise SystemExit(f"error: {one_line(error)}") from None
    except CalledProcessError as error:
        command = " ".join(map(str, error.cmd[:4]))
        raise SystemExit(f"error: `{command}` failed (exit code {error.returncode}); see above") from None


@contextmanager
def convert_system_errors(*paths: Path) -> Iterator[None]:
    """Turns errors of disks, memory and paths that a user can fix into a MaskcastError that names the path.

    Args:
        paths: paths that the block writes, besides the working directory and temporary files. If the disk is full
            and the error has no path, as for most libraries, the full one of these is named.
    """
    try:
        yield
    except MaskcastError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise MaskcastError(
                f"{_path_on_full_disk(error, paths)}: no space left on the device; free some and run the same "
                "command again"
            ) from error
        if is_out_of_memory(error):
            raise MaskcastError(
                f"not enough memory ({first_line(error)}); lower the batch size, or the sizes of model and frames"
            ) from error
        # Errors of requests, which may name an address with a token, are of this class, too, but have no number.
        if (
            isinstance(error, OSError)
            and error.errno
            and ((path := _path_of(error)) or error.errno in MACHINE_ERRNOS)
        ):
            prefix, reason = f"{path}: " if path else "", error.strerror or first_line(error)
            if path and _is_of_subprocess(error):
                raise MaskcastError(
                    f"{path}: cannot be run ({reason}); install it, or add its folder to PATH"
                ) from error
            remedy = remedy_of(error, "choose another path, or fix its permissions")
            raise MaskcastError(f"{prefix}cannot be read or written ({reason}); {remedy}") from error
        raise


def remedy_of(error: Exception, otherwise: str) -> str:
    """Returns the remedy for an error of the system; ``otherwise`` if it has none of its own."""
    return REMEDIES.get(getattr(error, "errno", None) or 0, otherwise)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that a disk, quota or file is full.

    PyTorch, safetensors and databases say so only in their messages.
    """
    return any(
        getattr(each, "errno", None) in DISK_FULL_ERRNOS
        or (isinstance(each, Exception) and DISK_FULL_MESSAGES.search(str(each)))
        for each in exception_chain(error)
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that memory ran out.

    PyTorch and OpenCV say so only in their messages.
    """
    return any(
        isinstance(each, MemoryError) or (isinstance(each, Exception) and OUT_OF_MEMORY_MESSAGES.search(str(each)))
        for each in exception_chain(error)
    )


def exception_chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


def _path_on_full_disk(error: BaseException, paths: Sequence[Path]) -> str:
    """Returns the path in an error or its causes, else a path on a full disk, else the first path."""
    for each in exception_chain(error):
        if getattr(each, "errno", None) in DISK_FULL_ERRNOS and (path := _path_of(each)):
            return path
    candidates = [*paths, Path.cwd(), Path(tempfile.gettempdir())]
    folders = [next(each for each in (path, *path.absolute().parents) if each.exists()) for path in candidates]
    full = [path for path, folder in zip(candidates, folders, strict=True) if _free_bytes(folder) < MIN_FREE_BYTES]
    return str((full or candidates)[0])


def _path_of(error: BaseException) -> str:
    """Returns the path in an error, or an empty text; of two, as of a copied file, the one to mend.

    A copy names its source first, but the disk of its target is what is full or read-only.
    """
    name, target = getattr(error, "filename", None), getattr(error, "filename2", None)
    if name is not None and target is not None:
        is_missing = isinstance(error, FileNotFoundError) and os.path.lexists(name)
        if is_missing or getattr(error, "errno", None) in (*DISK_FULL_ERRNOS, errno.EROFS):
            name = target
    return "" if name is None else os.fsdecode(name).removeprefix("file:")  # the prefix that FFmpeg is given


def _is_of_subprocess(error: BaseException) -> bool:
    """Whether an error was raised by the module `subprocess`, so that its path is that of a program."""
    frames = list(walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__") == "subprocess"


def _free_bytes(folder: Path) -> int:
    try:
        usage = os.statvfs(folder)
    except OSError:
        return MIN_FREE_BYTES
    return 0 if usage.f_files and not usage.f_favail else usage.f_bavail * usage.f_frsize
