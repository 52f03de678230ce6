"""A network on batches of one shape as a CUDA graph: its kernels are launched at once.

PyTorch takes longer to launch the kernels of a small batch than a fast GPU to run them.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor

from maskcast.errors import first_line
from maskcast.progress import say

AFTER = 8  # calls with one shape, after which it is worth to record one

R = TypeVar("R")


class Recorded(Generic[R]):
    """Calls a function of one tensor: as it is, or by a recorded call once the same shape has come often enough.

    Args:
        function: has no state, and does the same on the host in each call.
        record: records a call; returns what it gave, and a function that does it again into the same memory.
    """

    def __init__(
        self,
        function: Callable[[Tensor], R],
        record: Callable[[Callable[[], R]], tuple[R, Callable[[], None]]] | None = None,
    ) -> None:
        self._function, self._record = function, record or Recorder()
        self._shape: torch.Size | None = None
        self._seen = 0
        self._replay: Callable[[], None] | None = None

    def __call__(self, x: Tensor) -> R:
        """Returns what the function does of ``x``; it holds until the next call."""
        if self._replay is None and self._seen <= AFTER:
            self._seen = self._seen + 1 if x.shape == self._shape else 1
            self._shape = x.shape
            if self._seen > AFTER:
                self._begin(x)
        if self._replay is None or x.shape != self._shape:
            return self._function(x)
        self._input.copy_(x)
        self._replay()
        return self._found

    def _begin(self, x: Tensor) -> None:
        self._input = x.clone()
        try:
            self._found, self._replay = self._record(lambda: self._function(self._input))
        except Exception as error:  # of any library: the call as it is does the same
            say(f"not recorded as a CUDA graph: {type(error).__name__}: {first_line(error)}")


class Recorder:
    """Records work on the GPU without doing it.

    All that one records shares its memory: what a replay gave holds until the next replay of any of them.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        """Returns what some work will have given once the function is called that does it."""
        graph = torch.cuda.CUDAGraph()
        # other threads may go on with theirs, e.g. pin memory
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            found = work()
        return found, graph.replay
