"""Makes batches ahead of the step that needs them, and copies them to the device during an earlier step.

On a CPU one thread makes them, because training itself needs the processors. For a GPU PyTorch's ``DataLoader``
forks worker processes: threads would compete for Python's global lock with the loop, which launches the kernels.
Batches always come in the order of their steps, and each is a pure function of (seed, step). For a GPU they are in
pinned memory, and a separate CUDA stream copies the next one during the current step.
"""

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from maskcast.forking import init_forked_process, ready_to_fork
from maskcast.models.cuda_graphs import map_tensors, tensors_of
from maskcast.progress import say
from maskcast.resources import num_cpus
from maskcast.training.task import Task

PREFETCH = 4  # batches made ahead by a thread
PREFETCH_PER_WORKER = 2  # batches made ahead by each worker process
MAX_WORKERS = 12
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - worker processes hand over batches through it
MAX_WAIT_SHARE = 0.05  # share of the time that a GPU waits for batches, above which a warning is given


class BatchLoader:
    """Iterates over the batches of some steps, on a device.

    Args:
        task: makes the batches.
        steps: of the training.
        device: where the batches go.
        local_processes: processes that train on this machine, this one included; they share its processors.

    Attributes:
        waited: seconds for which the loop waited for batches, out of ``seconds`` in all; the first two steps do
            not count.
    """

    def __init__(self, task: Task, steps: range, device: torch.device, local_processes: int = 1) -> None:
        self.task, self.steps, self.device = task, steps, device
        self._processors = max(1, num_cpus() // local_processes)
        self.waited = self.seconds = 0.0

    def __iter__(self) -> Generator[tuple[int, Any], None, None]:
        """Yields the number of each step and its batch."""
        if not self.steps:
            return
        if self.device.type != "cuda":
            yield from zip(self.steps, prefetch_in_thread(self.task.batch, self.steps), strict=True)
            return
        copy_stream = torch.cuda.Stream(self.device)
        with closing(self._pinned_batches()) as batches:
            first = requested = time.monotonic()
            for number, step in enumerate(self.steps):
                batch = next(batches)
                if number < 2:  # the workers start with the second one
                    first = time.monotonic()
                else:
                    self.waited += time.monotonic() - requested
                with torch.cuda.stream(copy_stream):
                    batch = to_device(batch, self.device)
                compute_stream = torch.cuda.current_stream(self.device)
                compute_stream.wait_stream(copy_stream)
                for tensor in tensors_of(batch):
                    tensor.record_stream(compute_stream)  # else the side stream could reuse its memory too early
                yield step, batch
                requested = time.monotonic()
                self.seconds = requested - first
        if self.waited > MAX_WAIT_SHARE * self.seconds:
            share = self.waited / self.seconds
            say(f"training: the GPU waited {share:.0%} of the time for batches; give this process more processors")

    def _pinned_batches(self) -> Generator[Any, None, None]:
        """Yields batches in pinned memory."""
        batch = self.task.batch(self.steps[0])
        size = sum(tensor.nbytes for tensor in tensors_of(batch))
        yield pin_memory(batch)
        workers = num_workers(self._processors, size, len(self.steps) - 1)
        if workers:
            yield from prefetch_in_processes(self.task, self.steps[1:], workers)
        else:
            yield from map(pin_memory, prefetch_in_thread(self.task.batch, self.steps[1:]))


def num_workers(processors: int, batch_bytes: int, batches: int) -> int:
    """Returns the number of worker processes; 0 means a thread, as processors or shared memory do not suffice.

    Args:
        processors: number that this training may use.
        batch_bytes: size of a batch in bytes.
        batches: number of batches to make.
    """
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0
    by_memory = free // (2 * PREFETCH_PER_WORKER * max(batch_bytes, 1))
    return int(max(0, min(processors - 1, MAX_WORKERS, by_memory, batches)))


def prefetch_in_thread(make_batch: Callable[[int], Any], steps: range) -> Iterator[Any]:
    """Yields the batches of some steps, making the next few in a thread while the current one trains."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        futures = {step: pool.submit(make_batch, step) for step in steps[:PREFETCH]}
        try:
            for step in steps:
                if step + PREFETCH in steps:
                    futures[step + PREFETCH] = pool.submit(make_batch, step + PREFETCH)
                yield futures.pop(step).result()
        finally:
            for future in futures.values():
                future.cancel()


def prefetch_in_processes(task: Task, steps: range, workers: int) -> Iterator[Any]:
    """Yields the batches of some steps, made by worker processes; pinned where there is a GPU.

    Raises:
        MaskcastError: raised in a worker.
    """
    loader: DataLoader[Any] = DataLoader(
        _Batches(task),  # type: ignore[arg-type]
        batch_size=None,
        sampler=steps,
        collate_fn=lambda batch: batch,
        num_workers=workers,
        prefetch_factor=PREFETCH_PER_WORKER,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=lambda _: init_forked_process(),
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else it would advance the random state that the losses use
    )
    with ready_to_fork():
        batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, _WorkerError):
                raise batch.error
            yield batch
    finally:
        del batches  # ends the workers now, even if an error's traceback keeps this frame alive


class _WorkerError:
    """An error of a worker, passed on as an item: a DataLoader would lengthen its message to a page."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Batches:
    """A map-style data set: step to batch of a task."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def __getitem__(self, step: int) -> Any:
        try:
            return self.task.batch(step)
        except Exception as error:
            return _WorkerError(error)


def pin_memory(batch: Any) -> Any:
    """Returns a batch with all tensors in pinned memory, from which copies to a GPU are asynchronous."""
    return map_tensors(batch, Tensor.pin_memory)


def to_device(batch: Any, device: torch.device) -> Any:
    """Returns a batch with all tensors on a device; the types of lists, tuples and mappings stay."""
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))
