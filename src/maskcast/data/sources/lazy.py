"""Sequences too long for memory: samples in a temporary file, from which clips are made on access."""

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import ACCESS_READ, mmap
from typing import Any, TypeVar, overload

from maskcast.data.sources.hand_lists import Sample

T = TypeVar("T")


class SampleFile(Sequence[Sample]):
    """Samples in a temporary file; memory holds only 8 bytes per sample."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._ends = array("Q")
        with tempfile.TemporaryFile() as file:
            for sample in samples:
                file.write(json.dumps(sample).encode())
                self._ends.append(file.tell())
            file.flush()
            self._lines = mmap(file.fileno(), 0, access=ACCESS_READ) if self._ends else b""

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        k = range(len(self))[index]
        path, box, hands, mask = json.loads(self._lines[self._ends[k - 1] if k else 0 : self._ends[k]])
        return Sample(path, tuple(box), hands, mask)


class LazySequence(Sequence[T]):
    """A concatenation of sequences whose elements are made on access.

    Args:
        parts: pairs of a sequence and the function that makes an element from each of its items.
    """

    def __init__(self, parts: Sequence[tuple[Sequence[Any], Callable[[Any], T]]]) -> None:
        self._parts = [part for part in parts if len(part[0])]

    def __len__(self) -> int:
        return sum(len(items) for items, _ in self._parts)

    def __iter__(self) -> Iterator[T]:
        for items, make in self._parts:
            yield from map(make, items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        k = range(len(self))[index]
        for items, make in self._parts:
            if k < len(items):
                return make(items[k])
            k -= len(items)
        raise IndexError(index)
