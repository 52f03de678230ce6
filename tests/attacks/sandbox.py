"""A process that reads attacked files under limits of memory and time, and says how each case ended.

It is started anew when a case kills it. A case ends in `read`, in `refused` (one line that names the file), or in
what must never be: `traceback`, `memory`, `time`, `killed`.
"""

import importlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

MEMORY = 1536 << 20  # bytes of address space that a case may take beyond what the imports took
CPU_S = 10  # seconds of the processor that a case may take
BLOCKED_S = 10  # seconds that a case may sleep
LONGEST = 1500  # characters of a line
LARGE = ("maskcast.training.epochs", "maskcast.models.segmentation.table", "maskcast.models.forecasting.table")


@dataclass(frozen=True)
class Outcome:
    """How a case ended, and what was said."""

    ended: str
    said: str = ""


class Sandbox:
    """Runs readers by their name in a child process."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, reader: str, folder: Path) -> Outcome:
        """Lets a reader read the files of a folder."""
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(json.dumps([reader, str(folder)]).encode() + b"\n")
        child.stdin.flush()
        slept = 0
        while not select.select([child.stdout], [], [], 1)[0]:
            slept = slept + 1 if _sleeps(child.pid) else 0  # on a busy machine a case waits for the processor
            if slept == BLOCKED_S:
                self.close()
                return Outcome("time", f"it has slept for {BLOCKED_S} s")
        if line := child.stdout.readline():
            return Outcome(*json.loads(line))
        code = child.wait()
        self.close()
        return Outcome("time" if code == -signal.SIGXCPU else "killed", f"exit code {code}")

    def close(self) -> None:
        """Ends the child."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
        command = [sys.executable, "-m", "tests.attacks.sandbox"]
        self._child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, env=environment, cwd=Path(__file__).parents[2]
        )
        assert self._child.stdout is not None
        assert self._child.stdout.readline() == b"ready\n"
        return self._child


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "SD"


def serve() -> None:
    """Is what the child does."""
    from tests.attacks.readers import READERS

    for module in LARGE:  # before the limit: their libraries alone are above it
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(1, 2)
    print("ready", file=answers, flush=True)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    for line in sys.stdin:
        name, folder = json.loads(line)
        limit = int(time.process_time()) + CPU_S + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        print(json.dumps(_ended(READERS[name].read, Path(folder))), file=answers, flush=True)


def _ended(read, folder: Path) -> tuple[str, str]:
    from maskcast.errors import MaskcastError, one_line

    try:
        read(folder)
    except MaskcastError as error:
        line = one_line(error)
        named = str(folder) in line or any(name in line for name in os.listdir(folder))
        if not named or len(line) > LONGEST:
            return "traceback", f"a line without the file, or of {len(line)} characters: {line[:LONGEST]}"
        return "refused", line
    except MemoryError:
        return "memory", traceback.format_exc()[-LONGEST:]
    except BaseException:
        return "traceback", traceback.format_exc()[-2 * LONGEST :]
    return "read", ""


if __name__ == "__main__":
    serve()
