"""Training steps a second where a container may use one processor (or a part) of a machine with many.

    python benchmarks/quota.py [--quota 1.0] [--steps 20] [--rounds 3]

Each training runs in a process of its own, in a cgroup with a CPU quota as Kubernetes sets it (`limits.cpu`):
with as many threads as maskcast takes, with one, and with 32, as torch takes on a node of 32 processors. Making a
cgroup takes root and a writable /sys/fs/cgroup.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _common import positive_int, print_table
from maskcast.errors import one_line_errors

PERIOD_US = 100_000
CGROUP = Path("/sys/fs/cgroup")
TRAIN = """
import os, sys, time
from pathlib import Path
Path(sys.argv[1]).write_text(str(os.getpid()))  # from here on in the group
from maskcast.resources import limit_threads
limit_threads()
import torch
from maskcast.models.segmentation.unet import UNet
torch.manual_seed(0)
model = UNet(16, 49)
frames = torch.rand(16, 3, 80, 120).to(memory_format=torch.channels_last)
def step():
    model(frames).square().mean().backward()
step()
start = time.perf_counter()
for _ in range(int(sys.argv[2])):
    step()
print(int(sys.argv[2]) / (time.perf_counter() - start), torch.get_num_threads())
"""


@contextmanager
def group(quota: float) -> Iterator[Path]:
    """Creates a cgroup with a quota of ``quota`` processors; yields the file that adds processes to it."""
    version_2 = (CGROUP / "cgroup.controllers").exists()
    folder = (CGROUP if version_2 else CGROUP / "cpu") / f"maskcast-quota-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        sys.exit(f"error: {folder}: {error.strerror}; making a cgroup takes root and a writable {CGROUP}")
    try:
        if version_2:
            (folder / "cpu.max").write_text(f"{round(quota * PERIOD_US)} {PERIOD_US}")
        else:
            (folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (folder / "cpu.cfs_quota_us").write_text(str(round(quota * PERIOD_US)))
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


def steps_a_second(procs: Path, threads: int | None, steps: int) -> tuple[float, int]:
    """Returns the speed of a training in the cgroup, and its number of threads."""
    env = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    env |= {} if threads is None else {"OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", TRAIN, str(procs), str(steps)]
    speed, had = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    return float(speed), int(had)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quota", type=float, default=1.0, help="processors (default: %(default)s)")
    parser.add_argument("--steps", type=positive_int, default=20, help="of each training (default: %(default)s)")
    parser.add_argument("--rounds", type=positive_int, default=3, help="default: %(default)s")
    args = parser.parse_args()
    if not 0.01 <= args.quota < math.inf:
        parser.error(f"--quota {args.quota:g}: give processors, from 0.01 on")
    speeds: dict[str, list[float]] = {}
    with group(args.quota) as procs:
        for _ in range(args.rounds):
            for name, threads in (("maskcast", None), ("one thread", 1), ("32 threads", 32)):
                speed, had = steps_a_second(procs, threads, args.steps)
                speeds.setdefault(f"{name} ({had})" if threads is None else name, []).append(speed)
    medians = {name: statistics.median(each) for name, each in speeds.items()}
    one = medians["one thread"]
    rows = [[name, f"{speed:.2f}", f"{speed / one:.2f}"] for name, speed in medians.items()]
    print_table(f"{args.quota:g} processors", ["threads", "steps/s", "of one thread's"], rows)


if __name__ == "__main__":
    with one_line_errors():
        main()
