"""Work on a GPU as a CUDA graph: what a network finds, or the gradients of a step, launched at once.

PyTorch takes longer to launch the kernels of a small batch than a fast GPU to run them. Where each call launches
the same ones, they are recorded once for inputs of some shapes, after some calls that run as they are written, in
which libraries choose their kernels; then they are replayed on new inputs. Nothing that is done on the host may
differ from call to call. What torch's random state decides on the device may: a replay draws from the state as it
is then.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from maskcast.errors import first_line
from maskcast.progress import say

AFTER = 8  # calls with the same shapes, after which it is worth to record one
_ALONE = Lock()  # PyTorch records one graph at a time in a process

R = TypeVar("R")
Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]


class _Call(NamedTuple):
    inputs: list[Tensor]
    found: Any
    replay: Callable[[], None]
    grads: list[Tensor | None]


class Recorded(Generic[R]):
    """Calls a function of tensors: as it is, or by a recorded call once the same shapes have come often enough.

    Args:
        function: has no state but gradients, and does the same on the host in each call.
        record: records some work; returns what it gave, and a function that does it again into the same memory.
        learned: those whose gradients the function computes.
        after: calls of the same shapes that run as they are written.
        most: shapes that are recorded at most: each takes memory.
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
        """Returns how many calls are recorded."""
        return len(self._calls)

    def __call__(self, x: Any) -> R:
        """Returns what is done of ``x``, tensors in any nest; that and the gradients hold until the next call."""
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
        """Records a call, if that is possible; if not, none will be."""
        kept = changed(x, torch.clone)
        try:
            found, replay = self._record(lambda: self._function(kept))
        except Exception as error:  # of any library: the call as it is does the same
            say(f"not recorded as a CUDA graph: {type(error).__name__}: {first_line(error)}")
            self._most = 0
            for parameter in self._learned:
                parameter.grad = None
            return
        grads = [parameter.grad for parameter in self._learned]
        self._calls[shapes] = _Call(tensors_of(kept), found, replay, grads)


def changed(nest: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Returns a tensor, or lists, tuples and mappings of tensors, with each of these changed."""
    if isinstance(nest, Tensor):
        return change(nest)
    if isinstance(nest, Mapping):
        return {name: changed(part, change) for name, part in nest.items()}
    if isinstance(nest, list | tuple):
        parts = (changed(part, change) for part in nest)
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return nest


def tensors_of(nest: Any) -> list[Tensor]:
    """Returns all tensors of it."""
    found: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    changed(nest, keep)
    return found


class Recorder:
    """Records work on the GPU without doing it.

    All that one records shares its memory: what a replay gave holds until the next replay of any of them.
    """

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream: torch.cuda.Stream | None = None

    def __call__(self, work: Callable[[], R]) -> tuple[R, Callable[[], None]]:
        """Returns what some work will have given once the function is called that does it."""
        graph = torch.cuda.CUDAGraph()
        # PyTorch's own is a stream of one GPU, and what runs on another is not recorded there
        self._stream = self._stream or torch.cuda.Stream()
        # other threads may go on with theirs, e.g. pin memory
        with _ALONE, torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            found = work()
        return found, graph.replay
