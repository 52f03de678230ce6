"""Memory of this process: its size, glibc's handling of freed blocks, and Python's garbage collector."""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> None:
    """Makes glibc keep large freed blocks, which avoids page faults for large short-lived arrays.

    Otherwise these take most of the time of a training step on the CPU, and of reading clips.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def process_memory(name: str) -> int | None:
    """Returns this process's ``VmRSS`` (memory now) or ``VmHWM`` (peak memory) in bytes; None if unknown.

    ``ru_maxrss`` is not used, because it starts with the value of the parent process.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


def skip_last_collection() -> None:
    """Makes the end of this process skip its garbage collections, which take two seconds after PyTorch and MLflow.

    Not if Triton is imported, which reports each of its objects that is not collected.
    """
    if "triton" not in sys.modules:
        gc.freeze()


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pauses the cyclic garbage collector while the block creates many objects that stay.

    Otherwise repeated collections take a third of the time of parsing a large JSON file or importing a large
    library.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
