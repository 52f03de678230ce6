"""Captures the output of Kubeflow's local runner and of stages in a file, and shows one line per stage.

Stages that run at the same time, as variants of a grid do, get a second line when they end.
"""

import io
import re
import sys
import time
from collections.abc import Mapping
from typing import TextIO

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# The message of kfp's runner, after time and level.
BEGINS = re.compile(r"Executing task '([\w-]+)'")
ENDS = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
ERROR = re.compile(r"\s*(?:[\w.]+Error|error): (.+)")


class StageLog(io.TextIOBase):
    """A stream that writes everything to a file, and prints the progress of stages on stderr.

    Args:
        file: receives all output.
        total: number of stages.
        names: names of the stages in the pipeline, by kfp's names of their tasks.
    """

    def __init__(self, file: TextIO, total: int, names: Mapping[str, str]) -> None:
        self._file, self._total, self._names = file, total, names
        self._begun: dict[str, list[float]] = {}  # start times of each running stage
        self._count, self._line, self._open = 0, "", ""  # the last one is the stage whose line has no end yet
        self.stage = ""  # last stage that was started, or that failed
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
            self.stage, self._count = self._names.get(begins[1], begins[1]), self._count + 1
            self._begun.setdefault(self.stage, []).append(time.monotonic())
            line_end = "\n" if self._open else ""
            sys.stderr.write(f"{line_end}{self._count}/{self._total} {self.stage} ... ")
            self._open = self.stage
        elif ends := ENDS.search(line):
            stage, failed = self._names.get(ends[1], ends[1]), ends[2] != "SUCCESS"
            took = time.monotonic() - self._begun[stage].pop(0)
            line_begin = "" if self._open == stage else f"\n{stage} " if self._open else f"{stage} "
            sys.stderr.write(f"{line_begin}{'failed' if failed else 'done'} after {took:.0f} s\n")
            self._open = ""
            if failed:
                self.stage = stage
        elif error := ERROR.match(line):
            self.error = error[1]
        sys.stderr.flush()
