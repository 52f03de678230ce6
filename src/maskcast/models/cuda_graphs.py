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

WARM_UP_CALLS = 8  # calls with the same shapes before one is recorded
_RECORDING = Lock()  # PyTorch records one graph at a time in a process

R = TypeVar("R")
Shapes = tuple[tuple[tuple[int, ...], torch.dtype], ...]


class _RecordedCall(NamedTuple):
    inputs: list[Tensor]
    result: Any
    replay: Callable[[], None]
    grads: list[Tensor | None]


class GraphedCallable(Generic[R]):
    """Calls a function of tensors, and replays a recorded call once the same shapes have come often enough.

    Args:
        function: without state except gradients; does the same on the host in each call.
        record: records some work; returns its result, and a function that repeats the work into the same memory.
        parameters: parameters whose gradients the function computes.
        warm_up_calls: number of calls with the same shapes that run normally.
        max_graphs: sets of shapes that are recorded at most, because each takes memory.
    """

    def __init__(
        self,
        function: Callable[[Any], R],
        record: Callable[[Callable[[], R]], tuple[R, Callable[[], None]]] | None = None,
        *,
        parameters: Sequence[nn.Parameter] = (),
        warm_up_calls: int = WARM_UP_CALLS,
        max_graphs: int = 1,
    ) -> None:
        self._function, self._record, self._parameters = function, record or GraphRecorder(), parameters
        self._warm_up_calls, self._max_graphs = warm_up_calls, max_graphs
        self._seen: Counter[Shapes] = Counter()
        self._calls: dict[Shapes, _RecordedCall] = {}

    def __len__(self) -> int:
        """Returns the number of recorded calls."""
        return len(self._calls)

    def replays(self, x: Any) -> bool:
        """Returns whether a call with tensors of such shapes was recorded."""
        return shapes_of(x) in self._calls

    def __call__(self, x: Any) -> R:
        """Returns ``function(x)`` for nested tensors ``x``; result and gradients are valid until the next call."""
        shapes = shapes_of(x)
        if shapes not in self._calls:
            if len(self._calls) < self._max_graphs:
                self._seen[shapes] += 1
                if self._seen[shapes] > self._warm_up_calls:
                    self._record_call(x, shapes)
            if shapes not in self._calls:
                return self._function(x)
        call = self._calls[shapes]
        for buffer, new in zip(call.inputs, tensors_of(x), strict=True):
            buffer.copy_(new)
        call.replay()
        for parameter, grad in zip(self._parameters, call.grads, strict=True):
            parameter.grad = grad
        result: R = call.result
        return result

    def _record_call(self, x: Any, shapes: Shapes) -> None:
        """Records a call; if that fails, nothing is recorded from then on."""
        buffers = map_tensors(x, torch.clone)
        try:
            result, replay = self._record(lambda: self._function(buffers))
        except Exception as error:  # from any library; the normal call gives the same result
            cause = error.__context__ or error  # the end of a failed recording fails, too
            say(f"not recorded as a CUDA graph: {type(cause).__name__}: {first_line(cause)}")
            torch.clear_autocast_cache()  # it holds casts of weights that were recorded but never made
            self._max_graphs = 0
            for parameter in self._parameters:
                parameter.grad = None
            return
        grads = [parameter.grad for parameter in self._parameters]
        self._calls[shapes] = _RecordedCall(tensors_of(buffers), result, replay, grads)


def map_tensors(nest: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Applies ``change`` to a tensor, or to each tensor in nested lists, tuples and mappings."""
    if isinstance(nest, Tensor):
        return change(nest)
    if isinstance(nest, Mapping):
        return {name: map_tensors(part, change) for name, part in nest.items()}
    if isinstance(nest, list | tuple):
        parts = (map_tensors(part, change) for part in nest)
        return type(nest)(*parts) if hasattr(nest, "_fields") else type(nest)(parts)
    return nest


def tensors_of(nest: Any) -> list[Tensor]:
    """Returns all tensors in nested lists, tuples and mappings."""
    result: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        result.append(tensor)
        return tensor

    map_tensors(nest, keep)
    return result


def shapes_of(x: Any) -> Shapes:
    """Returns shape and type of each tensor in nested lists, tuples and mappings."""
    return tuple((tuple(each.shape), each.dtype) for each in tensors_of(x))


class GraphRecorder:
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
        with (
            _RECORDING,
            torch.cuda.stream(torch.cuda.current_stream()),  # in torch < 2.12 a failed recording leaves its own
            # other threads may continue their CUDA calls, e.g. pin memory
            torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
        ):
            result = work()
        return result, graph.replay
