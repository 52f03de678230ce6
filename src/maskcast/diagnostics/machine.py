"""Checks of the processors, GPUs, memory and disks that this process may use."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from maskcast.diagnostics.checks import CheckResult
from maskcast.installation import is_clone
from maskcast.resources import THREADS, memory_limit, num_cpus

GIB = 2**30
LOW_MEMORY = 4 * GIB  # below this even the default pipeline may run out of memory
LOW_DISK, FULL_DISK = 10 * GIB, GIB
LOW_SHARED_MEMORY = GIB  # worker processes pass batches through shared memory
SHARED = Path("/dev/shm")  # noqa: S108 - its free space is measured
GET_STARTED = "https://pytorch.org/get-started"
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
    finding = f"{_gib(free)} free of {_gib(total)}"
    if limit is not None and limit < machine.total:
        finding += f", the limit of the container (the machine has {_gib(machine.total)})"
    if free < LOW_MEMORY:
        remedy = "end other programs, or lower batch sizes; `maskcast dry-run` estimates the memory of each stage"
        yield CheckResult("memory", "warning", finding, remedy)
    else:
        yield CheckResult("memory", "ok", finding)


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
            finding = f"{about.name}, {_gib(about.total_memory)}, driver {driver}, PyTorch {torch.__version__}"
            built_for = [name.removeprefix("sm_") for name in torch.cuda.get_arch_list()]
            kinds = {divmod(int(name), 10) for name in built_for if name.isdigit()}  # code for 9.0 runs on 9.x
            if any(major == about.major and minor <= about.minor for major, minor in kinds):
                yield CheckResult(f"GPU {number}", "ok", finding)
            else:
                finding += f", which is not built for compute capability ({about.major}.{about.minor})"
                yield CheckResult(f"GPU {number}", "warning", finding, f"see {GET_STARTED}")
    elif fault:
        yield CheckResult(
            "GPU", "warning", f"nvidia-smi fails: {fault}", "restart the machine, or reinstall the driver"
        )
    elif not driver:
        yield CheckResult("GPU", "ok", f"none; PyTorch {torch.__version__} runs on the CPU")
    elif built is None:
        finding = f"PyTorch {torch.__version__} is built without CUDA (driver {driver})"
        how = "`make install` without TORCH=cpu" if is_clone() else GET_STARTED
        yield CheckResult("GPU", "warning", finding, f"install the CUDA build: {how}")
    elif os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1", "NoDevFiles"):
        yield CheckResult("GPU", "warning", "CUDA_VISIBLE_DEVICES hides all GPUs", "unset it")
    else:
        finding = f"driver {driver} is not accessible, or too old for CUDA {built} of PyTorch {torch.__version__}"
        yield CheckResult(
            "GPU", "warning", finding, f"install a newer driver, or PyTorch for an older CUDA: {DRIVERS}"
        )


def _driver() -> tuple[str, str]:
    """Returns the version of NVIDIA's driver and its error message; each may be empty."""
    if shutil.which("nvidia-smi") is None:
        return "", ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", str(error)
    output = done.stdout.split("\n")[0].strip()
    if done.returncode:
        return "", output or done.stderr.strip() or f"exit code {done.returncode}"
    return output, ""


def disks(folders: Mapping[str, Path]) -> Iterator[CheckResult]:
    """Yields a row on free space for each file system that is written to.

    Args:
        folders: folders that are written to, by a name for messages.
    """
    by_device: dict[int, list[tuple[str, Path]]] = {}
    for name, folder in ({"temporary files": Path(tempfile.gettempdir())} | dict(folders)).items():
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        by_device.setdefault(existing.stat().st_dev, []).append((name, existing))
        if not os.access(existing, os.W_OK):
            yield CheckResult(
                "disk",
                "missing",
                f"{existing} ({name}) is not writable",
                "fix its permissions, or use another folder",
            )
    for named in by_device.values():
        yield _disk_result(named[0][1], ", ".join(f"{name}: {folder}" for name, folder in named))
    if SHARED.is_dir():
        free = shutil.disk_usage(SHARED).free
        if free < LOW_SHARED_MEMORY:
            remedy = "use docker run --shm-size=8g; on Kubernetes set `shared_memory` in the cluster file"
            yield CheckResult(
                "shared memory",
                "warning",
                f"{SHARED}: {_gib(free)} free, too little for the data loader workers of a GPU",
                remedy,
            )
        else:
            yield CheckResult("shared memory", "ok", f"{SHARED}: {_gib(free)} free")


def _disk_result(folder: Path, what: str) -> CheckResult:
    usage, counts = shutil.disk_usage(folder), os.statvfs(folder)
    finding = f"{_gib(usage.free)} free of {_gib(usage.total)} ({what})"
    remedy = "free space: `dvc gc --workspace` removes cached data that the workspace does not use"
    if usage.free < FULL_DISK:
        return CheckResult("disk", "missing", finding, remedy)
    if counts.f_files and not counts.f_favail:
        return CheckResult(
            "disk", "missing", f"{finding}, but no free inodes, so no file can be created", "remove small files"
        )
    if usage.free < LOW_DISK:
        return CheckResult("disk", "warning", finding, remedy)
    return CheckResult("disk", "ok", finding)


def _gib(number: float) -> str:
    return f"{number / GIB:.1f} GiB"
