"""Checks of the machine as far as this process may use it: processors, GPUs, memory and disks."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from maskcast.diagnostics.checks import CheckResult
from maskcast.resources import THREADS, memory_limit, num_cpus

GIB = 2**30
LOW_MEMORY = 4 * GIB  # below this even the default pipeline may run out of memory
LOW_DISK, FULL_DISK = 10 * GIB, GIB
LOW_SHARED_MEMORY = GIB  # worker processes pass batches through shared memory
SHARED = Path("/dev/shm")  # noqa: S108 - what is measured
DRIVERS = "https://docs.nvidia.com/deploy/cuda-compatibility"


def processors() -> Iterator[CheckResult]:
    """Yields a row on the processors and threads of this process."""
    number, whole = num_cpus(), os.cpu_count() or 1
    threads = f", {THREADS}={os.environ[THREADS]}" if THREADS in os.environ else ""
    yield CheckResult("processors", "ok", f"{number} of the machine's {whole}{threads}")


def memory() -> Iterator[CheckResult]:
    """Yields a row on free memory of the machine, or of the container."""
    limit, machine = memory_limit(), psutil.virtual_memory()
    total = machine.total if limit is None else min(limit, machine.total)
    free = min(machine.available, total)
    said = f"{_gib(free)} free of {_gib(total)}"
    if limit is not None and limit < machine.total:
        said += f", the limit of the container (the machine has {_gib(machine.total)})"
    if free < LOW_MEMORY:
        remedy = "end other programs, or lower batch sizes; `maskcast dry-run` says what each stage needs"
        yield CheckResult("memory", "warning", said, remedy)
    else:
        yield CheckResult("memory", "ok", said)


def gpus() -> Iterator[CheckResult]:
    """Yields rows on the GPUs that PyTorch sees, and on the driver."""
    driver, fault = _driver()
    try:
        import torch
    except (ImportError, OSError) as error:
        yield CheckResult("PyTorch", "missing", f"cannot be imported: {error}", "pip install 'maskcast[train]'")
        return
    built = torch.version.cuda
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            said = f"{about.name}, {_gib(about.total_memory)}, driver {driver}, PyTorch {torch.__version__}"
            built_for = [name.removeprefix("sm_") for name in torch.cuda.get_arch_list()]
            kinds = {divmod(int(name), 10) for name in built_for if name.isdigit()}  # code for 9.0 runs on 9.x
            if any(major == about.major and minor <= about.minor for major, minor in kinds):
                yield CheckResult(f"GPU {number}", "ok", said)
            else:
                said += f", which is not built for its compute capability ({about.major}.{about.minor})"
                yield CheckResult(f"GPU {number}", "warning", said, "see https://pytorch.org/get-started")
    elif fault:
        yield CheckResult(
            "GPU", "warning", f"the driver fails: {fault}", "restart the machine, or install it again"
        )
    elif not driver:
        yield CheckResult("GPU", "ok", f"none; PyTorch {torch.__version__} runs on the CPU")
    elif built is None:
        yield CheckResult(
            "GPU",
            "warning",
            f"PyTorch {torch.__version__} is built without CUDA (driver {driver})",
            "install the CUDA build: `make install` without TORCH=cpu",
        )
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1", "NoDevFiles"):
        yield CheckResult("GPU", "warning", "CUDA_VISIBLE_DEVICES hides all GPUs", "unset it")
    else:
        said = f"driver {driver} is too old, or not reachable, for CUDA {built} of PyTorch {torch.__version__}"
        yield CheckResult("GPU", "warning", said, f"newer driver, or a PyTorch for an older CUDA: {DRIVERS}")


def _driver() -> tuple[str, str]:
    """Returns the version of NVIDIA's driver and its error message; each may be empty."""
    if shutil.which("nvidia-smi") is None:
        return "", ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    said = done.stdout.split("\n")[0].strip()
    return ("", said or done.stderr.strip() or f"exit code {done.returncode}") if done.returncode else (said, "")


def disks(places: Mapping[str, Path]) -> Iterator[CheckResult]:
    """Yields a row on free space for each file system that is written to.

    Args:
        places: folders that are written to, by a name for messages.
    """
    by_device: dict[int, list[tuple[str, Path]]] = {}
    for name, place in ({"temporary files": Path(tempfile.gettempdir())} | dict(places)).items():
        there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
        by_device.setdefault(there.stat().st_dev, []).append((name, there))
        if not os.access(there, os.W_OK):
            yield CheckResult(
                "disk",
                "missing",
                f"{there} ({name}) cannot be written",
                "correct its permissions, or use another folder",
            )
    for found in by_device.values():
        yield _disk_result("disk", found[0][1], ", ".join(f"{name}: {place}" for name, place in found))
    if SHARED.is_dir():
        free = shutil.disk_usage(SHARED).free
        if free < LOW_SHARED_MEMORY:
            remedy = "docker run --shm-size=8g; on Kubernetes `shared_memory` in the cluster file"
            yield CheckResult(
                "shared memory",
                "warning",
                f"{SHARED}: {_gib(free)} free, too little for the loaders of a GPU",
                remedy,
            )
        else:
            yield CheckResult("shared memory", "ok", f"{SHARED}: {_gib(free)} free")


def _disk_result(check: str, place: Path, what: str) -> CheckResult:
    usage, counts = shutil.disk_usage(place), os.statvfs(place)
    said = f"{_gib(usage.free)} free of {_gib(usage.total)} ({what})"
    remedy = "free some: `dvc gc --workspace` removes cached data that the workspace does not use"
    if usage.free < FULL_DISK:
        return CheckResult(check, "missing", said, remedy)
    if counts.f_files and not counts.f_favail:
        return CheckResult(
            check, "missing", f"{said}, but no file can be added: inodes are used up", "remove small files"
        )
    return CheckResult(
        check, "warning" if usage.free < LOW_DISK else "ok", said, remedy if usage.free < LOW_DISK else ""
    )


def _gib(number: float) -> str:
    return f"{number / GIB:.1f} GiB"
