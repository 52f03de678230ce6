"""What Kubeflow's local runner and the stages print: into a file, of which the user sees one line per stage."""

import io
import re
import sys
import time
from typing import TextIO

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# As kfp's runner writes it, after time and level.
BEGINS = re.compile(r"Executing task '([\w-]+)'")
ENDS = re.compile(r"Task '[\w-]+' finished with status (\w+)")
ERROR = re.compile(r"\s*(?:[\w.]+Error|error): (.+)")


class StageLog(io.TextIOBase):
    """A stream that keeps all it is given, and tells on stderr how the stages go.

    Args:
        file: takes everything.
        total: how many stages there are.
    """

    def __init__(self, file: TextIO, total: int) -> None:
        self._file, self._total = file, total
        self._begun, self._count, self._line = 0.0, 0, ""
        self.stage = ""  # that ran last
        self.error = ""  # the last error that was printed

    def write(self, text: str) -> int:
        """Takes text; a line may come in pieces."""
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
