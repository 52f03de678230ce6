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

from maskcast.forking import begin, ready_to_fork
from maskcast.models.recorded import changed, tensors_of
from maskcast.processors import num_processors
from maskcast.progress import say
from maskcast.training.task import Task

AHEAD = 4  # batches made ahead by a thread
EACH_AHEAD = 2  # batches made ahead by each worker process
MOST_WORKERS = 12
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - worker processes hand over batches through it
SLOW = 0.05  # share of the time that a GPU waits for batches, above which a warning is given


class Feed:
    """Iterates over the batches of some steps, on a device.

    Args:
        task: makes the batches.
        steps: of the training.
        device: where the batches go.
        beside: processes that train on this machine, this one included; they share its processors.

    Attributes:
        waited: seconds for which the loop waited for batches, out of ``seconds`` in all; the first two steps do
            not count.
    """

    def __init__(self, task: Task, steps: range, device: torch.device, beside: int = 1) -> None:
        self.task, self.steps, self.device = task, steps, device
        self._processors = max(1, num_processors() // beside)
        self.waited = self.seconds = 0.0

    def __iter__(self) -> Generator[tuple[int, Any], None, None]:
        """Yields the number of each step and its batch."""
        if not self.steps:
            return
        if self.device.type != "cuda":
            yield from zip(self.steps, ahead(self.task.batch, self.steps), strict=True)
            return
        side = torch.cuda.Stream(self.device)
        with closing(self._made()) as batches:
            first = asked = time.monotonic()
            for number, step in enumerate(self.steps):
                batch = next(batches)
                if number < 2:  # the workers start with the second one
                    first = time.monotonic()
                else:
                    self.waited += time.monotonic() - asked
                with torch.cuda.stream(side):
                    batch = to_device(batch, self.device)
                main = torch.cuda.current_stream(self.device)
                main.wait_stream(side)
                for tensor in tensors_of(batch):
                    tensor.record_stream(main)  # else the side stream could reuse its memory too early
                yield step, batch
                asked = time.monotonic()
                self.seconds = asked - first
        if self.waited > SLOW * self.seconds:
            share = self.waited / self.seconds
            say(f"training: the GPU waited {share:.0%} of the time for batches; give this process more processors")

    def _made(self) -> Generator[Any, None, None]:
        """Yields batches in pinned memory."""
        batch = self.task.batch(self.steps[0])
        size = sum(tensor.nbytes for tensor in tensors_of(batch))
        yield pinned(batch)
        workers = num_workers(self._processors, size, len(self.steps) - 1)
        if workers:
            yield from forked(self.task, self.steps[1:], workers)
        else:
            yield from map(pinned, ahead(self.task.batch, self.steps[1:]))


def num_workers(processors: int, batch_bytes: int, batches: int) -> int:
    """Returns the number of worker processes; 0 means a thread, as processors or shared memory do not suffice.

    Args:
        processors: number that this training may use.
        batch_bytes: size of a batch in bytes.
        batches: number of batches to make.
    """
    try:
        room = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return 0
    fitting = room // (2 * EACH_AHEAD * max(batch_bytes, 1))
    return int(max(0, min(processors - 1, MOST_WORKERS, fitting, batches)))


def ahead(make: Callable[[int], Any], steps: range) -> Iterator[Any]:
    """Yields the batches of some steps, making the next few in a thread while the current one trains."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        coming = {step: pool.submit(make, step) for step in steps[:AHEAD]}
        try:
            for step in steps:
                if step + AHEAD in steps:
                    coming[step + AHEAD] = pool.submit(make, step + AHEAD)
                yield coming.pop(step).result()
        finally:
            for future in coming.values():
                future.cancel()


def forked(task: Task, steps: range, workers: int) -> Iterator[Any]:
    """Yields the batches of some steps, made by worker processes; pinned where there is a GPU.

    Raises:
        MaskcastError: raised in a worker.
    """
    loader: DataLoader[Any] = DataLoader(
        _Batches(task),  # type: ignore[arg-type]
        batch_size=None,
        sampler=steps,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=EACH_AHEAD,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=lambda _: begin(),
        multiprocessing_context="fork",
        generator=torch.Generator(),  # else it would advance the random state that the losses use
    )
    with ready_to_fork():
        batches = iter(loader)
    try:
        for made in batches:
            if isinstance(made, _Raised):
                raise made.error
            yield made
    finally:
        del batches  # ends the workers now, even if an error's traceback keeps this frame alive


class _Raised:
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
            return _Raised(error)


def _as_it_is(batch: Any) -> Any:
    return batch


def pinned(batch: Any) -> Any:
    """Returns a batch with all tensors in pinned memory, from which copies to a GPU are asynchronous."""
    return changed(batch, Tensor.pin_memory)


def to_device(batch: Any, device: torch.device) -> Any:
    """Returns a batch with all tensors on a device; the types of lists, tuples and mappings stay."""
    return changed(batch, lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))
