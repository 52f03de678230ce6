"""What this process may use, which in a container is not what the machine has: processors, and memory."""

import math
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # bytes: what version 1 says where there is no limit is a number above it
THREADS = "OMP_NUM_THREADS"  # read by torch, when it is imported
_limited = False  # whether this process has set it


def num_processors() -> int:
    """Returns the processors that this process may run on, and may keep busy: at least 1.

    The first is its affinity; the second is the CPU quota of its container (cgroups of version 2 or 1), which a
    `limits.cpu` of Kubernetes sets. 1.5 processors count as 2: a thread more costs less than an idle half.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def limit_threads() -> None:
    """Lets torch, and processes to be started, use as many threads as there are processors to use.

    Without it they take one per processor of the machine, and 32 threads share the time of one. What
    OMP_NUM_THREADS says already holds.
    """
    if _quota() is None or THREADS in os.environ:
        return
    global _limited
    _limited = True
    os.environ[THREADS] = str(num_processors())
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_processors())


def threads_for(processes: int) -> int | None:
    """Returns how many threads each of several processes gets; None where OMP_NUM_THREADS was set by the user."""
    if THREADS in os.environ and not _limited:
        return None
    return max(1, num_processors() // processes)


def _quota() -> float | None:
    """Returns how many processors the container may keep busy, or None where nothing limits it."""
    quotas = [each for folder in _folders("cpu") if (each := _read(folder)) is not None]
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Returns the bytes of memory that the container may take, or None where nothing limits it."""
    limits = []
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
            with suppress(OSError, ValueError):  # `max` is no number
                limits.append(int((folder / name).read_text(encoding="ascii")))
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def _folders(wanted: str) -> Iterator[Path]:
    """Yields where the limits of this process by a controller stand: its groups and those above them.

    In a container the own group mostly is the root of what is mounted; outside it lies below.
    """
    for line in _groups():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, beside version 1 mounted as `unified`
            roots = [CGROUP, CGROUP / "unified"]
        elif wanted in controllers.split(","):
            roots = [CGROUP / controllers]
        else:
            continue
        group = Path(path.lstrip("/"))
        yield from (root / above for root in roots for above in [group, *group.parents])


def _groups() -> list[str]:
    """Returns the groups of this process: `hierarchy:controllers:path`."""
    try:
        return Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _read(folder: Path) -> float | None:
    """Returns the quota that a group sets, in processors."""
    try:
        if (folder / "cpu.max").exists():  # version 2: `max 100000` or `150000 100000`
            most, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            return None if most == "max" else int(most) / int(period)
        most = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")  # version 1: -1 where there is none
        period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(most) / int(period) if int(most) > 0 else None
    except (OSError, ValueError):
        return None
