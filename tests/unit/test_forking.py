"""Functions in processes of their own: what comes back, and that nothing stays."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from maskcast import forking
from maskcast.errors import MaskcastError
from maskcast.forking import TASKS, ForkedFunction, forked_calls, joined_thread_pool

POOL = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import cv2
from maskcast.forking import init_spawned_process
from maskcast.progress import say

def work():
    say("one")
    say("two")
    return cv2.getNumThreads()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, init_spawned_process) as pool:
        print(pool.submit(work).result())
"""


def test_a_worker_of_a_pool_works_on_if_its_messages_cannot_be_printed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, stderr=full, text=True)
    assert (done.returncode, done.stdout) == (0, "1\n")


class Sum:
    """Adds up what it gets, and says where."""

    def __init__(self) -> None:
        self.total = 0.0

    def __call__(self, word: str, arrays: dict[str, list[np.ndarray]]) -> tuple[int, str, float]:
        if word == "refused":
            raise MaskcastError("params: refused; give other ones")
        if word == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        self.total += sum(float(array.sum()) for array in arrays["some"])
        return os.getpid(), word, self.total


def test_a_process_remembers_and_gets_the_arrays_as_they_are() -> None:
    arrays = [
        np.arange(7, dtype=np.uint8),
        np.ones((3, 5), np.float32)[:, ::2],
        np.empty((0, 4)),
        np.full(9, 0.25),
    ]
    total, ours = Sum(), ForkedFunction(Sum(), 1000, "adds")
    for word in ("one", "two"):
        process, *found = ours(word, {"some": arrays})
        assert process != os.getpid()
        assert found == list(total(word, {"some": arrays})[1:])
    ours.close()
    assert gone(process)


def test_what_it_raises_is_raised_here_and_it_goes_on() -> None:
    ours = ForkedFunction(Sum(), 1000, "adds")
    with pytest.raises(MaskcastError, match=r"^params: refused; give other ones$"):
        ours("refused", {})
    assert ours("fine", {"some": [np.ones(3)]})[1:] == ("fine", 3.0)
    ours.close()


def test_one_that_dies_is_said_in_a_line() -> None:
    first, second = ForkedFunction(Sum(), 1000, "adds"), ForkedFunction(Sum(), 1000, "adds")
    with pytest.raises(
        MaskcastError, match=r"^a process that adds died, perhaps for lack of memory; give it more"
    ):
        first("killed", {})
    with pytest.raises(MaskcastError, match="died"):
        first("again", {"some": []})
    assert second("fine", {"some": []})[2] == 0
    for one in (first, second):
        one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only there processes are forked beside threads")
@pytest.mark.parametrize("processors", [1, 3])
def test_many_calls_give_their_results_in_order(monkeypatch: pytest.MonkeyPatch, processors: int) -> None:
    def halve(number: int, array: np.ndarray) -> tuple[int, int, float]:
        time.sleep(0.02 * (number == 0))
        if number == 9:
            raise MaskcastError("params: refused; give other ones")
        return os.getpid(), number, float(array.sum()) / 2

    monkeypatch.setattr(forking, "num_cpus", lambda: processors)
    with forked_calls(halve, 2, 1000, "halves") as call:
        found = [*call((n, np.full(100, n)) for n in range(5)), *call([(5, np.ones(3))])]
        with pytest.raises(MaskcastError, match=r"^params: refused; give other ones$"):
            list(call((n, np.ones(3)) for n in range(7, 12)))
    assert [each[1:] for each in found] == [*((n, 50.0 * n) for n in range(5)), (5, 1.5)]
    processes = {process for process, *_ in found}
    if processors == 1:
        assert processes == {os.getpid()}
    else:
        assert os.getpid() not in processes and len(processes) == 2 and all(map(gone, processes))


def test_they_end_with_the_process_that_is_killed(tmp_path: Path) -> None:
    if not (parent := os.fork()):
        several = [ForkedFunction(Sum(), 1000, "adds") for _ in range(3)]
        (tmp_path / "pids").write_text(" ".join(str(one("", {"some": []})[0]) for one in several))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    processes = list(map(int, (tmp_path / "pids").read_text().split()))
    assert len(processes) == 3
    end = time.monotonic() + 300
    while not all(map(gone, processes)):
        assert time.monotonic() < end
        time.sleep(0.01)


def gone(process: int) -> bool:
    """Whether a process has ended; an orphan may wait for its new parent to look."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only there processes are forked beside threads")
def test_threads_have_ended_when_their_pool_is_over() -> None:
    """Python has joined a thread before the system has: here the thread takes long to end."""
    libc, key = ctypes.CDLL(None), ctypes.c_uint()
    libc.pthread_key_create(ctypes.byref(key), ctypes.cast(libc.usleep, ctypes.c_void_p))

    def work(_: int) -> int:
        libc.pthread_setspecific(key, ctypes.c_void_p(200_000))  # microseconds, once the thread ends
        return threading.get_native_id()

    with joined_thread_pool(2, "test") as pool:
        ids = set(pool.map(work, range(8)))
    assert ids and not any((TASKS / str(one)).exists() for one in ids)
    libc.pthread_key_delete(key)
