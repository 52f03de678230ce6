"""Records work on a GPU (inference, or the gradients of a step) as a CUDA graph, which one call launches.

PyTorch takes longer to launch the kernels of a small batch than a fast GPU takes to run them. If each call
launches the same kernels, they are recorded once per set of input shapes, and then replayed on new inputs. The
first calls run normally, because libraries choose their kernels in them. Nothing that is done on the host may
differ between calls. Random numbers drawn on the device may: a replay draws from the current random state.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from maskcast.errors import first_line
from maskcast.progress import say

AFTER = 8  # calls with the same shapes before one is recorded
_ALONE = Lock()  # PyTorch records one graph at a time in a process

R = TypeVar("R")
Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]


class _Call(NamedTuple):
    inputs: list[Tensor]
    found: Any
    replay: Callable[[], None]
    grads: list[Tensor | None]


class Recorded(Generic[R]):
    """Calls a function of tensors, and replays a recorded call once the same shapes have come often enough.

    Args:
        function: without state except gradients; does the same on the host in each call.
        record: records some work; returns its result, and a function that repeats the work into the same memory.
        learned: parameters whose gradients the function computes.
        after: number of calls with the same shapes that run normally.
        most: sets of shapes that are recorded at most, because each takes memory.
    """

    def __init__(
        self,
        function: Callable[[Any], R],
        record: Callable[[Callable[[], R]], tuple[R, Callable[[], None]]] | None = None,
        *,
        learned: Sequence[nn.Parameter] = (),
        after: int = AFTER,
        most: int = 1,
    ) -> None:
        self._function, self._record, self._learned = function, record or Recorder(), learned
        self._after, self._most = after, most
        self._seen: Counter[Shapes] = Counter()
        self._calls: dict[Shapes, _Call] = {}

    def __len__(self) -> int:
        """Returns the number of recorded calls."""
        return len(self._calls)

    def __call__(self, x: Any) -> R:
        """Returns ``function(x)`` for nested tensors ``x``; result and gradients are valid until the next call."""
        shapes = tuple((tuple(each.shape), each.dtype) for each in tensors_of(x))
        if shapes not in self._calls:
            if len(self._calls) < self._most:
                self._seen[shapes] += 1
                if self._seen[shapes] > self._after:
                    self._begin(x, shapes)
            if shapes not in self._calls:
                return self._function(x)
        call = self._calls[shapes]
        for own, new in zip(call.inputs, tensors_of(x), strict=True):
            own.copy_(new)
        call.replay()
        for parameter, grad in zip(self._learned, call.grads, strict=True):
            parameter.grad = grad
        found: R = call.found
        return found

    def _begin(self, x: Any, shapes: Shapes) -> None:
        """Records a call; if that fails, nothing is recorded from then on."""
        kept = changed(x, torch.clone)
        try:
            found, replay = self._record(lambda: self._function(kept))
        except Exception as error:  # from any library; the normal call gives the same result
            say(f"not recorded as a CUDA graph: {type(error).__name__}: {first_line(error)}")
            self._most = 0
            for parameter in self._learned:
                parameter.grad = None
            return
        grads = [parameter.grad for parameter in self._learned]
        self._calls[shapes] = _Call(tensors_of(kept), found, replay, grads)


def changed(nest: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Applies ``change`` to a tensor, or to each tensor in nested lists, tuples and mappings."""
    if isinstance(nest, Tensor):
        return change(nest)
    if isinstance(nest, Mapping):
        return {name: changed(part, change) for name, part in nest.items()}
    if isinstance(nest, list | tuple):
        parts = (changed(part, change) for part in nest)
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return nest


def tensors_of(nest: Any) -> list[Tensor]:
    """Returns all tensors in nested lists, tuples and mappings."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    changed(nest, keep)
    return found


class Recorder:
    """Records work on the GPU, without running it.

    All recordings of one recorder share memory, so the result of a replay is valid until the next replay.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        """Returns the tensors for the result, and a function that runs the work."""
        graph = torch.cuda.CUDAGraph()
        # PyTorch's default stream for this belongs to one GPU and does not record work on another
        self._stream = self._stream or torch.cuda.Stream()
        # other threads may continue their CUDA calls, e.g. pin memory
        with _ALONE, torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            found = work()
        return found, graph.replay
