"""The one exception that users are meant to see."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from maskcast.redaction import as_written


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


def one_line(error: BaseException) -> str:
    """Returns what an error says as one line, without the secrets that may stand in it."""
    return " ".join(as_written(str(error)).split())


@contextmanager
def user_errors_of_disk() -> Iterator[None]:
    """Turns errors of the disk that a user can mend into a MaskcastError."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MaskcastError(
                f"{place}no space left on the device; free some and run the same command again (it resumes)"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise MaskcastError(
                f"{place}cannot be written or read ({error.strerror}); choose another path or mend its rights"
            ) from error
        raise
