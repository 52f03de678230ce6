"""A GPU that is not there: tensors that say they are on one, and hold their values on the host.

An operation on them and on tensors of the host fails as it would with a GPU, so that a whole stage shows without
one whether host and device are kept apart. Kernels, compiled parts and CUDA graphs do not take part.
"""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests import recorded
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from maskcast.models.cuda_graphs import GraphRecorder
from maskcast.training import feeding, learner, loop

GPU = torch.device("cuda", 0)
Call = Callable[..., Any]


class OnGpu(Tensor):
    """A tensor that says it is on the GPU."""

    @classmethod
    def __torch_function__(cls, func: Call, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return self.as_subclass(Tensor).__reduce_ex__(protocol)


class OnGpuParameter(OnGpu):
    """A parameter that says so."""

    _is_param = True


class _Everywhere(TorchFunctionMode):
    """Sees what is asked of tensors of the host, too: where they are sent, and where they are made."""

    def __torch_function__(self, func: Call, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


class _State:
    backward = 0  # how deep: there autograd hands over tensors without their class


def _moved(x: Tensor) -> Tensor:
    """Returns the same tensor, which is on the GPU from now on."""
    if not isinstance(x, OnGpu):
        x.__class__ = OnGpuParameter if isinstance(x, nn.Parameter) else OnGpu
    return x


def _all_moved(out: Any, but: Collection[int] = ()) -> Any:
    """Moves all tensors of a result, but those of some ids, which an operation was given."""
    for each in tree_leaves(out):
        if isinstance(each, Tensor) and id(each) not in but:
            _moved(each)
    return out


def _is_gpu(device: Any) -> bool:
    return isinstance(device, int) or torch.device(device).type == "cuda"


def _to(x: Tensor, args: Any, kwargs: Any) -> Tensor:
    """`Tensor.to`, whose positional arguments are a device, a type or a tensor, and flags."""
    wanted = {name: value for name, value in kwargs.items() if name not in ("device", "non_blocking")}
    device = kwargs.get("device")
    for each in args:
        if isinstance(each, torch.device | str | int) and not isinstance(each, bool):
            device = each
        elif isinstance(each, torch.dtype):
            wanted["dtype"] = each
        elif isinstance(each, Tensor):
            device, wanted["dtype"] = each.device, each.dtype
    gpu = isinstance(x, OnGpu) if device is None else _is_gpu(device)
    with torch._C.DisableTorchFunction():
        y = x.to(**wanted)
        if y is x and gpu != isinstance(x, OnGpu):
            y = x.clone()
    if gpu:
        return _moved(y)
    if isinstance(y, OnGpu):
        y.__class__ = Tensor
    return y


def _called(func: Call, args: Any, kwargs: Any) -> Any:
    name = getattr(func, "__name__", "")
    of = args[0] if args and isinstance(args[0], Tensor) else None
    gpu = isinstance(of, OnGpu)
    if name == "__get__":
        return _got(func, of, gpu, args)
    if name == "__set__" and func == Tensor.data.__set__:  # type: ignore[attr-defined]
        with torch._C.DisableTorchFunction():
            func(*args)
        if isinstance(args[1], OnGpu):
            _moved(args[0])
        return None
    if of is not None:
        if name == "to":
            return _to(of, args[1:], kwargs)
        if name == "cuda":
            return _to(of, (GPU,), {})
        if name == "cpu":
            return _to(of, ("cpu",), {})
        if name in ("pin_memory", "is_pinned"):
            assert not gpu, f"{name} of a tensor on the GPU"
            return of
        if gpu and name in ("numpy", "__array__"):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "share_memory_":
            assert not gpu, "share_memory_ of a tensor on the GPU"
        if name == "backward":
            return _back(func, args, kwargs)
    if name in ("grad", "_run_backward") and "autograd" in str(getattr(func, "__module__", "")):
        return _back(func, args, kwargs)
    if name == "_has_compatible_shallow_copy_type":
        return isinstance(args[0], OnGpu) == isinstance(args[1], OnGpu)
    if name in ("is_tensor", "is_floating_point", "is_complex", "get_device", "has_torch_function"):
        with torch._C.DisableTorchFunction():
            return func(*args, **kwargs)
    asked = kwargs.get("device")
    if asked is not None:
        kwargs = kwargs | {"device": "cpu"}
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    here = [each for each in tensors if isinstance(each, OnGpu)]
    if here and asked is None:
        _check(name, tensors)
    with torch._C.DisableTorchFunction():
        out = func(*args, **kwargs)
    gpu = bool(here) if asked is None else _is_gpu(asked)
    return _all_moved(out, {id(each) for each in tensors}) if gpu else out


def _got(func: Call, of: Any, gpu: bool, args: Any) -> Any:
    with torch._C.DisableTorchFunction():
        value = func(*args)
    if not gpu:
        return value
    if func == Tensor.device.__get__:  # type: ignore[attr-defined]
        return GPU
    if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
        return True
    if func == Tensor.is_cpu.__get__:  # type: ignore[attr-defined]
        return False
    return _all_moved(value)


def _back(func: Call, args: Any, kwargs: Any) -> Any:
    _State.backward += 1
    try:
        with torch._C.DisableTorchFunction():
            out = func(*args, **kwargs)
    finally:
        _State.backward -= 1
    gpu = any(isinstance(each, OnGpu) for each in tree_leaves((args, kwargs)))
    return _all_moved(out) if gpu else out


def _check(name: str, tensors: list[Tensor]) -> None:
    """Fails where a tensor of the host meets one of the GPU."""
    if _State.backward or name in ("copy_", "__setitem__"):
        return
    if name == "__getitem__":
        if not isinstance(tensors[0], OnGpu):
            raise RuntimeError("indices should be on the same device as the indexed tensor (cpu)")
        return
    joined = name in ("cat", "stack", "concat", "vstack", "hstack")
    with torch._C.DisableTorchFunction():
        strangers = [each for each in tensors if not isinstance(each, OnGpu) and (joined or each.dim())]
    if strangers:
        shapes = [tuple(each.shape) for each in strangers]
        raise RuntimeError(f"{name}: expected all tensors to be on cuda:0, but {shapes} are on the CPU")


class _Event:
    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, *_: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True


class _Stream(_Event):
    def wait_stream(self, _: Any) -> None:
        pass

    def wait_event(self, _: Any) -> None:
        pass

    def is_capturing(self) -> bool:
        return False

    def record_event(self) -> _Event:
        return _Event()


_plain_run = threading.Thread.run


def _run(thread: threading.Thread) -> None:
    with _Everywhere():
        _plain_run(thread)


class _Learner(learner.Learner):
    """Records steps, where a GPU would, and does the work of each again."""

    def __init__(self, task: Any, *given: Any) -> None:
        super().__init__(task, *given)
        if self._recorded is not None:
            self._recorded._record = recorded.GraphRecorder(task.model)


def _record(_: Any, work: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
    """Records what has no state."""
    found = work()

    def replay() -> None:
        for kept, new in zip(tree_leaves(found), tree_leaves(work()), strict=True):
            kept.copy_(new)

    return found, replay


class _Autocast(torch.autocast):
    def __init__(self, device_type: str, *given: Any, **named: Any) -> None:
        super().__init__("cpu", *given, **named)


@contextmanager
def pretended_gpu(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Has one GPU inside the block."""
    room = 8 << 30
    replaced: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda _: None,
        "device": lambda _: nullcontext(),
        "stream": lambda _: nullcontext(),
        "Stream": _Stream,
        "Event": _Event,
        "current_stream": lambda _=None: _Stream(),
        "synchronize": lambda _=None: None,
        "empty_cache": lambda: None,
        "get_device_name": lambda _=None: "a GPU that is not there",
        "get_device_capability": lambda _=None: (6, 0),  # too old for kernels
        "get_device_properties": lambda _=None: SimpleNamespace(total_memory=room, name="none", major=6, minor=0),
        "get_arch_list": list,
        "get_per_process_memory_fraction": lambda _=None: 1.0,
        "mem_get_info": lambda _=None: (room, room),
        "memory_reserved": lambda _=None: 0,
        "memory_allocated": lambda _=None: 1 << 18,
        "max_memory_allocated": lambda _=None: 1 << 20,
        "max_memory_reserved": lambda _=None: 1 << 20,
        "reset_peak_memory_stats": lambda _=None: None,
        "graph_pool_handle": lambda: None,
        "manual_seed": lambda _: None,
        "manual_seed_all": lambda _: None,
        "get_rng_state": lambda _=None: torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": lambda *_: None,
    }
    for name, value in replaced.items():
        patch.setattr(torch.cuda, name, value)
    patch.setattr(torch.accelerator, "current_stream", lambda _=None: _Stream())
    patch.setattr(threading.Thread, "run", _run)
    patch.setattr(loop, "Learner", _Learner)
    patch.setattr(GraphRecorder, "__call__", _record)
    patch.setattr(feeding, "num_workers", lambda *_: 0)  # a DataLoader asks the driver
    patch.setattr(torch, "autocast", _Autocast)
    patch.setattr(Tensor, "record_stream", lambda self, stream: None)
    with _Everywhere():
        yield
