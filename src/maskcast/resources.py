"""Processors and memory that this process may use; in a container these are fewer than the machine's."""

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
UNLIMITED = 2**60  # bytes: version 1 reports a larger number if there is no limit
STATISTICS = Path("/proc/stat")
BUSY_S = 0.05  # how long other programs must run without a pause for the machine to count as busy
THREADS = "OMP_NUM_THREADS"  # torch reads it when it is imported
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # likewise: how threads wait for each other
_limited = False  # whether this process has set THREADS


def num_cpus() -> int:
    """Returns the number of processors that this process may use, at least 1.

    This is the minimum of its CPU affinity and of its container's CPU quota (cgroups version 2 or 1, set by
    `limits.cpu` of Kubernetes). 1.5 processors count as 2, because an extra thread costs less than an idle half.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return affinity if quota is None else max(1, min(affinity, math.ceil(quota)))


def limit_threads() -> None:
    """Fits the threads of torch, and of child processes, to this machine. To be called before torch is imported.

    They are at most as many as the usable processors: by default they are one per processor of the machine, and 32
    threads may share the time of one processor. If other programs are running on the processors, threads that wait
    for others sleep. By default they spin, and take the time of the thread that they wait for: a training of two
    threads ran at an eighth of the speed (docs/decisions/2026-11-30-busy-machines.md). Results are the same.

    A given OMP_NUM_THREADS, OMP_WAIT_POLICY or GOMP_SPINCOUNT is respected.
    """
    if "torch" not in sys.modules and not any(name in os.environ for name in WAITING) and _is_busy():
        os.environ[WAITING[0]] = "PASSIVE"
    if _quota() is None or THREADS in os.environ:
        return
    global _limited
    _limited = True
    os.environ[THREADS] = str(num_cpus())
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_cpus())


def _is_busy() -> bool:
    """Returns whether all the time other processes run on processors that our threads would need."""
    needed = num_cpus()
    with suppress(KeyError, ValueError):
        needed = min(needed, int(os.environ[THREADS]))
    free = (os.cpu_count() or 1) - needed
    for _ in range(5):
        if _num_others() <= free:
            return False
        time.sleep(BUSY_S / 5)
    return True


def _num_others() -> int:
    """Returns the number of threads of the machine that are running or ready to run, without this one."""
    try:
        lines = STATISTICS.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("procs_running ")) - 1


def threads_per_process(processes: int) -> int | None:
    """Returns the number of threads for each of several processes; None if the user has set OMP_NUM_THREADS."""
    if THREADS in os.environ and not _limited:
        return None
    return max(1, num_cpus() // processes)


def _quota() -> float | None:
    """Returns the container's CPU quota in processors, or None if there is none."""
    quotas = [each for folder in _folders("cpu") if (each := _read(folder)) is not None]
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Returns the container's memory limit in bytes, or None if there is none."""
    limits = []
    for folder in _folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
            with suppress(OSError, ValueError):  # `max` is not a number
                limits.append(int((folder / name).read_text(encoding="ascii")))
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """Yields the folders with limits of this process for a controller: its own group and the groups above.

    In a container, the own group is mostly the root of the mounted tree; outside, it is below.
    """
    for line in _groups():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, beside version 1 mounted as `unified`
            roots = [CGROUP, CGROUP / "unified"]
        elif controller in controllers.split(","):
            roots = [CGROUP / controllers]
        else:
            continue
        group = Path(path.lstrip("/"))
        yield from (root / folder for root in roots for folder in [group, *group.parents])


def _groups() -> list[str]:
    """Returns the control groups of this process: `hierarchy:controllers:path`."""
    try:
        return Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _read(folder: Path) -> float | None:
    """Returns the CPU quota of a group, in processors, or None."""
    try:
        if (folder / "cpu.max").exists():  # version 2: `max 100000` or `150000 100000`
            quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
            return None if quota == "max" else int(quota) / int(period)
        quota = (folder / "cpu.cfs_quota_us").read_text(encoding="ascii")  # version 1: -1 for no limit
        period = (folder / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):
        return None
