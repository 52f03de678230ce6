"""Batches, made ahead of the step that needs them and brought to the device while it works on an earlier one.

On a CPU one thread makes them, because training itself needs the processors. For a GPU there are worker processes,
forked and fed by PyTorch's ``DataLoader``: a thread per processor would share Python's lock with the loop, which
launches the kernels. Batches come in the order of their steps whoever makes them, and each is a pure function of
(seed, step). They come in pinned memory, and a stream of its own copies the next one while the last one trains.
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
EACH_AHEAD = 2  # by each worker process
MOST_WORKERS = 12
SHARED_MEMORY = "/dev/shm"  # noqa: S108 - through which worker processes hand over batches
SLOW = 0.05  # share of the time that a GPU may wait for batches before it is said


class Feed:
    """The batches of some steps, on a device.

    Args:
        task: makes them.
        steps: of the training.
        device: where the batches go.
        beside: processes that train on this machine, this one included; they share its processors.

    Attributes:
        waited: seconds for which the loop waited for batches, of ``seconds`` in all; the first two do not count.
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
                if number < 2:  # with the second one the workers start
                    first = time.monotonic()
                else:
                    self.waited += time.monotonic() - asked
                with torch.cuda.stream(side):
                    batch = to_device(batch, self.device)
                main = torch.cuda.current_stream(self.device)
                main.wait_stream(side)
                for tensor in tensors_of(batch):
                    tensor.record_stream(main)  # or its memory would be free again for the side stream
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
    """Returns how many processes make batches; 0 where a thread has to, for want of processors or shared memory.

    Args:
        processors: that this training may use.
        batch_bytes: size of a batch.
        batches: to make.
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
        MaskcastError: what a worker raised.
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
        generator=torch.Generator(),  # or it would draw from the state that the losses draw from
    )
    with ready_to_fork():
        batches = iter(loader)
    try:
        for made in batches:
            if isinstance(made, _Raised):
                raise made.error
            yield made
    finally:
        del batches  # ends the workers now, though an error may hold on to this frame


class _Raised:
    """What a worker raised: handed over as it is, because a DataLoader would make a page of its message."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class _Batches:
    """The batches of a task by step, as a data set."""

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
    """Returns a batch with all tensors in pinned memory, from which a GPU copies by itself."""
    return changed(batch, Tensor.pin_memory)


def to_device(batch: Any, device: torch.device) -> Any:
    """Returns a batch with all tensors on a device; lists, tuples and mappings stay what they are."""
    return changed(batch, lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))
