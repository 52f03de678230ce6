"""Captures the output of Kubeflow's local runner and of stages in a file, and shows one line per stage."""

import io
import re
import sys
import time
from typing import TextIO

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The message of kfp's runner, after time and level.
BEGINS = re.compile(r"Executing task '([\w-]+)'")
ENDS = re.compile(r"Task '[\w-]+' finished with status (\w+)")
ERROR = re.compile(r"\s*(?:[\w.]+Error|error): (.+)")


class StageLog(io.TextIOBase):
    """A stream that writes everything to a file, and prints the progress of stages on stderr.

    Args:
        file: receives all output.
        total: number of stages.
    """

    def __init__(self, file: TextIO, total: int) -> None:
        self._file, self._total = file, total
        self._begun, self._count, self._line = 0.0, 0, ""
        self.stage = ""  # last stage that was started
        self.error = ""  # last error that was printed

    def write(self, text: str) -> int:
        """Writes text, which may be a part of a line."""
        self._file.write(text)
        self._file.flush()
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._read(COLOUR.sub("", line))
        return len(text)

    def _read(self, line: str) -> None:
        # Not by print, which the runner replaces.
        if begins := BEGINS.search(line):
            self._begun, self._count, self.stage = time.monotonic(), self._count + 1, begins[1].replace("-", "_")
            sys.stderr.write(f"{self._count}/{self._total} {self.stage} ... ")
        elif ends := ENDS.search(line):
            how = "done" if ends[1] == "SUCCESS" else "failed"
            sys.stderr.write(f"{how} after {time.monotonic() - self._begun:.0f} s\n")
        elif error := ERROR.match(line):
            self.error = error[1]
        sys.stderr.flush()
