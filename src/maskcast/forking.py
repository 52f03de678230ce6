"""Processes that a program with threads forks, or a pool spawns; they end with the process that started them.

A forked process starts in milliseconds with all modules loaded. It must not use the GPU, nor anything whose lock a
thread of the parent may have held during the fork. Numpy and zstandard are safe; OpenCV is safe if no thread that
used it is about to end (``joined_thread_pool``).
"""

import gc
import mmap
import multiprocessing
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from itertools import starmap
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from maskcast.errors import MaskcastError
from maskcast.memory import gc_paused
from maskcast.resources import num_cpus
from maskcast.stopping import children_ignore_terminal, exit_with_parent
from maskcast.streams import protect_streams

ALIGNMENT = 64  # bytes: alignment of arrays in shared memory
GAPS = 2**24  # bytes of shared memory for gaps between arrays; unused ones cost nothing
R = TypeVar("R")
TASKS = Path("/proc/self/task")  # the threads of this process on Linux


@contextmanager
def joined_thread_pool(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A thread pool for OpenCV, after which it is safe to fork.

    A thread that Python has joined still runs for a moment, in which it takes a lock of OpenCV. A process forked
    at that moment would wait for this lock forever. So the block only ends when the system no longer lists these
    threads.
    """
    ids: list[int] = []
    with ThreadPoolExecutor(
        threads, thread_name_prefix=name, initializer=lambda: ids.append(threading.get_native_id())
    ) as pool:
        yield pool
    while any((TASKS / str(one)).exists() for one in ids):
        time.sleep(0)


@contextmanager
def ready_to_fork() -> Iterator[None]:
    """A block in which processes may be forked that stop with this one; prepares OpenCV, collector and signals."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # OpenCV's thread pool does not survive a fork
    try:
        with gc_paused(), children_ignore_terminal(), warnings.catch_warnings():
            # Python warns about forks in programs with threads, which may hold a lock. The threads here hold none
            # that the forked processes need.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        cv2.setNumThreads(threads)


def shared_array(size: int, dtype: npt.DTypeLike) -> np.ndarray:
    """Returns an array of zeros that processes forked later share with this one.

    Its memory is anonymous, so nothing remains, and only used pages take memory.
    """
    flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    memory = mmap.mmap(-1, max(1, size) * np.dtype(dtype).itemsize, flags)
    return np.frombuffer(memory, dtype, size)


def shared_lock() -> AbstractContextManager[bool]:
    """Returns a lock that processes forked later share with this one.

    Where ``/dev/shm`` is missing or read-only, as in some sandboxes, only threads share it. PyTorch's workers,
    which hand over batches through it, cannot start there either.
    """
    try:
        return multiprocessing.get_context("fork").Lock()
    except OSError:
        return threading.Lock()


def init_forked_process() -> None:
    """Prepares a forked process: SIGTERM ends it, and objects from the parent are never collected."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # cluster managers send it to all processes of a job
    gc.freeze()  # including the parent's garbage, which may be on the GPU
    gc.enable()


def init_spawned_process() -> None:
    """Prepares a spawned worker of a pool, which ends with its parent; OpenCV uses one thread.

    Its messages that cannot be printed end no work.
    """
    exit_with_parent()
    protect_streams()
    cv2.setNumThreads(1)


class ForkedFunction:
    """A function that runs in a forked process, one call at a time, with arrays in shared memory.

    A pipe would take ten times as long. However this process ends, the pipe closes and the forked process ends,
    too.

    Args:
        function: its state stays in the forked process. It must not keep the arrays that it gets, because the next
            call overwrites them.
        room: maximum size in bytes of all arrays of a call.
        what: name of the work, for the error if the process dies.
    """

    def __init__(self, function: Callable[..., Any], room: int, what: str) -> None:
        self._bytes = shared_array(room + GAPS, np.uint8)
        self._what = what
        context = multiprocessing.get_context("fork")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(function, self._bytes, theirs, self._pipe), daemon=True
        )
        with ready_to_fork():
            self._process.start()
        theirs.close()

    def __call__(self, *given: Any) -> Any:
        """Returns the result of the function.

        Raises:
            Exception: any exception of the function.
            MaskcastError: the process died.
        """
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(given, protocol=5, buffer_callback=buffers.append)
        spans, start = [], 0
        for buffer in buffers:
            array = np.frombuffer(buffer.raw(), np.uint8)
            self._bytes[start : start + array.size] = array  # copies without Python's lock
            spans.append(slice(start, start + array.size))
            start += -(-array.size // ALIGNMENT) * ALIGNMENT
        try:
            self._pipe.send((head, spans))
            result, raised = self._pipe.recv()
        except (EOFError, OSError) as ended:
            raise MaskcastError(
                f"a process that {self._what} died, perhaps for lack of memory; give it more, or fewer processors"
            ) from ended
        if raised is not None:
            raise raised
        return result

    def close(self) -> None:
        """Ends the process after its present call."""
        with suppress(OSError):  # it may have died
            self._pipe.send(None)
        self._process.join()
        self._pipe.close()


ForkedCalls = Callable[[Iterable[tuple[Any, ...]]], Iterator[R]]


@contextmanager
def forked_calls(function: Callable[..., R], most: int, room: int, what: str) -> Iterator[ForkedCalls[R]]:
    """Yields a function that calls another one with many arguments, and returns the results in their order.

    The calls run in a process per processor; in this one if there is only one, or forks are not safe.

    Args:
        function: its results depend on its arguments alone; see ``ForkedFunction``.
        most: maximum number of processes.
        room: maximum size in bytes of all arrays of a call.
        what: name of the work, for the error if a process dies.
    """
    count = min(num_cpus(), most)
    if count == 1 or sys.platform != "linux":
        yield partial(starmap, function)
        return
    idle: SimpleQueue[ForkedFunction] = SimpleQueue()
    for _ in range(count):
        idle.put(ForkedFunction(function, room, what))

    def call(given: tuple[Any, ...]) -> R:
        process = idle.get()
        try:
            result: R = process(*given)
        finally:
            idle.put(process)
        return result

    try:
        with ThreadPoolExecutor(count, thread_name_prefix="calls") as threads:
            yield lambda calls: threads.map(call, calls)
    finally:
        for _ in range(count):
            idle.get().close()


def _serve(function: Callable[..., Any], shared: np.ndarray, pipe: Connection, theirs: Connection) -> None:
    """Main loop of the forked process: answers calls until told to end, or until the parent's end is closed.

    Processes forked later also hold that end open. So processes end in reverse order of their start.
    """
    theirs.close()
    init_forked_process()
    with suppress(EOFError, OSError):
        while call := pipe.recv():
            head, spans = call
            try:
                given = pickle.loads(head, buffers=[shared[span] for span in spans])  # noqa: S301 - of this program
                result, raised = function(*given), None
            except Exception as error:
                result, raised = None, error
            pipe.send((result, raised))
