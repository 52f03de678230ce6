"""Sequences too long for memory: samples in a temporary file, from which clips are made on access."""

import json
import tempfile
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from mmap import ACCESS_READ, mmap
from typing import overload

from maskcast.data.sources.base import RawClip
from maskcast.data.sources.hand_lists import Sample


class SampleFile:
    """Samples in a temporary file, by index from 0; memory holds only 8 bytes per sample."""

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

    def __getitem__(self, index: int) -> Sample:
        start = self._ends[index - 1] if index else 0
        path, box, hands, mask = json.loads(self._lines[start : self._ends[index]])
        return Sample(path, tuple(box), hands, mask)


Part = tuple[SampleFile | list[Sample], Callable[[Sample], RawClip]]


class LazyClips(Sequence[RawClip]):
    """Clips that are made from samples on access.

    Args:
        parts: pairs of samples and the function that makes a clip from each of them.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(len(samples) for samples, _ in self._parts)

    def __iter__(self) -> Iterator[RawClip]:
        for samples, make in self._parts:
            yield from (make(samples[k]) for k in range(len(samples)))

    @overload
    def __getitem__(self, index: int) -> RawClip: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[RawClip]: ...
    def __getitem__(self, index: int | slice) -> RawClip | Sequence[RawClip]:
        if isinstance(index, slice):
            return [self[k] for k in range(len(self))[index]]
        k = range(len(self))[index]
        for samples, make in self._parts:
            if k < len(samples):
                return make(samples[k])
            k -= len(samples)
        raise IndexError(index)
