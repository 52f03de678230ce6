"""Reads weights from untrusted files: their sizes are checked before memory is allocated."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from maskcast.digest import sha256_of
from maskcast.errors import MaskcastError
from maskcast.params import Params
from maskcast.plugins import class_name, is_plugin
from maskcast.reading import open_file, parsing

MAX_HEADER = 16 << 20  # most bytes of a file's header; 10,000 tensors take 1 MiB
BUILD_FACTOR = 4  # building a network may allocate so many times its weights, e.g. for random numbers
MIN_LIMIT = 2**24  # numbers that may always be allocated
MIN_TENSOR = 2**12  # least numbers that a tensor counts for, as millions of small ones take long
LIMIT_WITHOUT_FILE = 2**28  # limit for a network without a file
WEIGHTS, REMEDY = "file of weights in safetensors", "train or fetch it again"
BUILD_ERRORS = (RuntimeError, ValueError, TypeError, ArithmeticError, MemoryError)  # of invalid configs
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}

N = TypeVar("N", bound=nn.Module)


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the tensors in a safetensors file by name, without reading the tensors.

    Raises:
        MaskcastError: if it cannot be read.
    """
    with open_file(path, WEIGHTS, REMEDY) as file, parsing(path, f"a {WEIGHTS}", REMEDY):
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise ValueError(f"header of {size} bytes, at most {MAX_HEADER} supported")
        header: Mapping[str, Any] = json.loads(file.read(size))
        header = {name: tensor for name, tensor in header.items() if name != "__metadata__"}
        return {name: tuple(map(int, tensor["shape"])) for name, tensor in header.items()}


def read_weights(path: Path, sha256: str | None = None) -> dict[str, torch.Tensor]:
    """Returns the tensors in a safetensors file by name.

    Args:
        path: the file.
        sha256: what it must have; None if unknown.

    Raises:
        MaskcastError: if it cannot be read, a number is not finite, or the sha256 differs.
    """
    read_shapes(path)
    with parsing(path, f"a {WEIGHTS}", REMEDY):
        state: dict[str, torch.Tensor] = load_file(path)
    not_finite = [name for name, weights in sorted(state.items()) if not weights.isfinite().all()]
    if not_finite:
        raise MaskcastError(
            f"{path}: {not_finite[0]} ({len(not_finite)} in all) has values that are not finite; {REMEDY}"
        )
    if sha256 is not None and sha256 != sha256_of(path):
        raise MaskcastError(
            f"{path}: contents differ from the sha256 in config.json; {REMEDY}, or if you changed the weights "
            "yourself, remove sha256 there"
        )
    return state


def load_weights(model: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Loads a safetensors file into ``model``; names and shapes must match, and all numbers be finite.

    Args:
        model: gets the weights.
        path: the file.
        sha256: what it must have; None if unknown.

    Raises:
        MaskcastError: if weights are missing, unknown, of another shape or not finite, or the sha256 differs; the
            message names the first ones.
    """
    file_shapes = read_shapes(path)
    model_shapes = {name: tuple(weights.shape) for name, weights in model.state_dict().items()}
    missing = sorted(model_shapes.keys() - file_shapes.keys())
    unknown = sorted(file_shapes.keys() - model_shapes.keys())
    mismatched = [
        name
        for name in sorted(model_shapes.keys() & file_shapes.keys())
        if model_shapes[name] != file_shapes[name]
    ]
    for fault, names in (("missing", missing), ("unexpected", unknown), ("wrong shape of", mismatched)):
        if names:
            raise MaskcastError(
                f"{path}: {fault} weights {names[0]} ({len(names)} in all); the file belongs to another network"
            )
    model.load_state_dict(read_weights(path, sha256))


def build_within_limit(path: Path, config: Params, build: Callable[[], N]) -> N:
    """Builds the network for a weights file, unless it is far larger than the file's weights.

    Args:
        path: the weights; if the file does not exist, networks up to a fixed size are built.
        config: of the network, which may be of another package.
        build: builds the network, freshly initialised.

    Raises:
        MaskcastError: if it is too large or cannot be built, or the weights cannot be read.
    """
    limit = (
        BUILD_FACTOR * sum(map(math.prod, read_shapes(path).values())) + MIN_LIMIT
        if path.exists()
        else LIMIT_WITHOUT_FILE
    )
    try:
        with _AllocationLimit(limit, path):
            return build()
    except MaskcastError:
        raise
    except Exception as error:  # another package may raise anything
        reason = str(error)[:200]
        if is_plugin(config):
            package = type(config).__module__.partition(".")[0]
            raise MaskcastError(
                f"{path}: {class_name(config)} cannot build its network ({type(error).__name__}: {reason}); "
                f"fix package {package}, or install the version that trained it"
            ) from error
        if not isinstance(error, BUILD_ERRORS):
            raise
        raise MaskcastError(f"{path}: its config is invalid ({reason}); train or fetch it again") from None


class _AllocationLimit(TorchFunctionMode):
    """A mode that limits how many numbers are allocated.

    Args:
        numbers: the limit.
        path: named in errors.
    """

    def __init__(self, numbers: int, path: Path) -> None:
        super().__init__()
        self._remaining, self._path = numbers, path

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls a function of torch, unless its result would exceed the limit."""
        if func in FACTORIES:
            size = args[:1] if args and not isinstance(args[0], int) else args
            size = size or ((kwargs or {}).get("size", ()),)
            shape = size[0] if size and isinstance(size[0], tuple | list) else size
            self._remaining -= max(math.prod(shape), MIN_TENSOR)
            if self._remaining < 0:
                raise MaskcastError(
                    f"{self._path}: its config describes a far larger network; train or fetch it again"
                )
        return func(*args, **(kwargs or {}))
