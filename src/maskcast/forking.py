"""Processes that are forked beside threads, and end with the one that started them.

A forked process starts in milliseconds and finds all modules loaded. It must leave the GPU alone, and whatever a
thread of its parent may have held a lock of at that moment. Numpy and zstandard are fine; OpenCV is where no
thread that used it is about to end (``short_lived``).
"""

import gc
import mmap
import multiprocessing
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskcast.errors import MaskcastError
from maskcast.memory import collector_paused
from maskcast.stopping import children_ignore_ctrl_c

ALIGNED = 64  # bytes: where an array begins in shared memory
TASKS = Path("/proc/self/task")  # the threads of this process, as Linux knows them


@contextmanager
def short_lived(threads: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool for threads that use OpenCV, after which processes may be forked.

    A thread that Python has joined is still about to end, and takes a lock of OpenCV's then. A process that is
    forked at that moment waits for this lock for ever. So the block ends when the system has no such thread left.
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
    """Starts processes that stop with this one, and leaves them nothing that a fork breaks."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # OpenCV's pool of threads does not come along
    try:
        with collector_paused(), children_ignore_ctrl_c(), warnings.catch_warnings():
            # Python warns of forks beside threads: one may hold a lock. Those that run here hold none that
            # the work of these processes needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        cv2.setNumThreads(threads)


def begin() -> None:
    """Prepares a forked process: SIGTERM ends it, and what it was born with on the GPU is left alone."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # which cluster managers send to all processes of a job
    gc.freeze()  # what the parent has not cleaned up yet, either
    gc.enable()


class ForkedFunction:
    """A function that runs in a forked process, one call after the other, with arrays in shared memory.

    A pipe would take ten times as long. The memory has no name, so nothing of it is left behind, and only as much
    as was used counts. The process ends with this one, however that ends: its pipe is closed then.

    Args:
        function: what it remembers stays in that process; of the arrays it gets, which the next call overwrites,
            nothing.
        room: bytes that the arrays of a call may have together.
        what: the work, for what is said if the process dies.
    """

    def __init__(self, function: Callable[..., Any], room: int, what: str) -> None:
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._bytes = np.frombuffer(mmap.mmap(-1, room, flags), np.uint8)
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
        """Returns what the function does.

        Raises:
            Exception: what the function raised.
            MaskcastError: the process died.
        """
        buffers: list[pickle.PickleBuffer] = []
        head = pickle.dumps(given, protocol=5, buffer_callback=buffers.append)
        spans, start = [], 0
        for buffer in buffers:
            array = np.frombuffer(buffer.raw(), np.uint8)
            self._bytes[start : start + array.size] = array  # without Python's lock
            spans.append(slice(start, start + array.size))
            start += -(-array.size // ALIGNED) * ALIGNED
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
        """Ends the process, after the call that it is at."""
        with suppress(OSError):  # it may have died
            self._pipe.send(None)
        self._process.join()
        self._pipe.close()


def _serve(function: Callable[..., Any], shared: np.ndarray, pipe: Connection, theirs: Connection) -> None:
    """Runs in the forked process: answers until it is told to end, or the other end of the pipe is closed.

    Processes forked after this one hold that end, too. So the last one sees it closed first, then the one before.
    """
    theirs.close()
    begin()
    with suppress(EOFError, OSError):
        while call := pipe.recv():
            head, spans = call
            try:
                given = pickle.loads(head, buffers=[shared[span] for span in spans])  # noqa: S301 - of this program
                result, raised = function(*given), None
            except Exception as error:
                result, raised = None, error
            pipe.send((result, raised))
