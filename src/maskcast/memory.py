"""How this process holds memory: how much, which blocks glibc keeps, and when Python looks for cycles."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> None:
    """Tells glibc to keep large freed blocks, so that what is large and short-lived costs no page faults.

    A training step on the CPU and a reader of clips spend most of their time on them otherwise.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def told_by_linux(name: str) -> int | None:
    """Returns bytes of this process: ``VmRSS`` now, ``VmHWM`` at most; None where the system does not tell.

    Not ``ru_maxrss``, which begins with that of the process it was started by.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return None


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pauses the cyclic garbage collector while the block makes many objects that stay.

    Looking through them again and again takes a third of the time of parsing a large JSON file, or of importing
    a large library.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
