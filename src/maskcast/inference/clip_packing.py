"""What is found in many clips, on its way to files: it agrees, where it is to, and is packed on all processors."""

import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from maskcast.data.clip_store.finished import FinishedClip, FinishedClips
from maskcast.data.clip_store.packing import LayerPacker
from maskcast.forking import ForkedFunction
from maskcast.inference.agreement import Agreement
from maskcast.inference.found import Found, MeanConfidence, length, quantise
from maskcast.labels import LabelMap
from maskcast.processors import num_processors

WAITING = 2  # pieces per processor that wait to be compressed
SPARE = 2**24  # bytes beside the arrays of a piece, for gaps between them: what is not used costs nothing


class Packer:
    """Compresses what is found in clips, once it agrees, and saves each clip that is whole.

    Args:
        maps: the label maps to write.
        levels: steps to which a confidence is rounded.
        consistent_frames: see ``segment``.
        counts: frames of each clip.
        finished: takes the clips.
    """

    def __init__(
        self,
        maps: Sequence[LabelMap],
        levels: int,
        consistent_frames: int | None,
        counts: Sequence[int],
        finished: FinishedClips,
    ) -> None:
        self.maps, self.levels, self.consistent_frames = maps, levels, consistent_frames
        self._left, self._finished = list(counts), finished
        self._growing: dict[int, _GrowingClip] = {}

    def __call__(self, number: int, found: Found) -> None:
        """Takes the next frames of a clip; those of one clip come in order."""
        if number not in self._growing:
            self._growing[number] = _GrowingClip(self.maps, self.levels, self.consistent_frames)
        self._growing[number].add(found)
        self._left[number] -= length(found)
        if not self._left[number]:
            self._finished.save(number, self._growing.pop(number).finish())


def lanes(packer: Packer, pixels: int) -> list[Packer | ForkedFunction]:
    """Returns what packs clips side by side, one for each processor.

    Where frames agree, each is a copy in a process of its own: half of the work is Python's, under whose lock two
    threads do less than one.

    Args:
        packer: packs in a thread.
        pixels: of the largest piece.
    """
    count = num_processors()
    if packer.consistent_frames is None or count == 1 or sys.platform != "linux":  # elsewhere forks are not safe
        return [packer] * count
    # a byte and a float for each pixel, and a float for each of its classes, were all pixels objects
    numbers = sum(5 + 4 * one.num_classes for one in packer.maps)
    return [ForkedFunction(packer, pixels * numbers + SPARE, "makes masks agree") for _ in range(count)]


class Packing:
    """Packs many clips side by side, each by one of the packers.

    Args:
        packers: each works in a thread of its own, at least.
    """

    def __init__(self, packers: Sequence[Packer | ForkedFunction]) -> None:
        self._packers = packers
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="packing") for _ in packers]
        self._running: deque[Future[None]] = deque()

    def add(self, number: int, found: Found) -> None:
        """Takes the next frames of a clip; those of one clip come in order."""
        lane = number % len(self._threads)
        self._running.append(self._threads[lane].submit(self._packers[lane], number, found))
        while len(self._running) > WAITING * len(self._threads):
            self._running.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._running and kind is None:
                self._running.popleft().result()
        finally:
            for thread in self._threads:
                thread.shutdown(cancel_futures=True)
            for packer in self._packers:
                if isinstance(packer, ForkedFunction):
                    packer.close()


class _GrowingClip:
    """The masks of a clip whose frames still come; memory holds them compressed."""

    def __init__(self, maps: Sequence[LabelMap], levels: int, consistent_frames: int | None) -> None:
        self._levels, self._mean = levels, MeanConfidence()
        self._agreement = None if consistent_frames is None else Agreement(consistent_frames)
        self._masks = {one.name: LayerPacker() for one in maps}
        self._sure = {one.name: LayerPacker() for one in maps if one.kind == "classes"}

    def add(self, found: Found) -> None:
        """Takes what is found in the next frames."""
        for piece in [found] if self._agreement is None else self._agreement.add(found):
            self._pack(piece)

    def _pack(self, found: Found) -> None:
        for name, packer in self._masks.items():
            packer.add(found[name].masks)
        for name, packer in self._sure.items():
            confidence = found[name].confidence
            assert confidence is not None
            sure = confidence if confidence.dtype == np.uint8 else quantise(confidence, self._levels)
            packer.add(sure)
            self._mean.add(found[name].masks, sure)

    def finish(self) -> FinishedClip:
        """Returns the clip."""
        for piece in [] if self._agreement is None else self._agreement.end():
            self._pack(piece)
        masks, sure = ({name: one.finish() for name, one in each.items()} for each in (self._masks, self._sure))
        return FinishedClip(masks, sure, {"mean_confidence": self._mean.value} if sure else {})
