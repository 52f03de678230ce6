"""Standard output and error that cannot be written, e.g. a log on a full disk, never end the work."""

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import TextIO


class LossyStream(TextIOWrapper):
    """A standard stream whose text is lost from the first failed write on.

    Attributes:
        error: the error of that write.

    Raises:
        BrokenPipeError: the reader of the standard output has closed the pipe, as in `... | head`.
    """

    error: OSError | None = None
    replaced: TextIO  # kept, as the end of the replaced stream would close the file of both

    def write(self, text: str) -> int:
        """Writes a text; returns its length."""
        if text:  # devices refuse even an empty write
            self._lossy(lambda: super(LossyStream, self).write(text))
        return len(text)

    def flush(self) -> None:
        """Writes what was kept in memory."""
        self._lossy(super().flush)

    def _lossy(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self.fileno() == 1:
                raise
            self.error = self.error or error
            discard(self)


def protect_streams() -> None:
    """Replaces the standard streams of this process; characters that cannot be encoded are printed as `?`."""
    sys.stdout = _lossy(sys.stdout, "replace")
    sys.stderr = _lossy(sys.stderr, "backslashreplace")


def discard(stream: TextIO) -> None:
    """Sends to nowhere what a stream, or this process's children, write to its file, and what is left of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _lossy(stream: TextIO, errors: str) -> TextIO:
    """Returns the stream that replaces one; streams that are closed (None), or of others, stay."""
    if not isinstance(stream, TextIOWrapper):
        return stream
    stream.flush()
    lossy = LossyStream(
        stream.buffer,
        stream.encoding,
        errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,  # of PYTHONUNBUFFERED
    )
    lossy.replaced = stream
    return lossy
