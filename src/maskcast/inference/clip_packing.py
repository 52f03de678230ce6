"""Post-processes the predictions of many clips on all processors: consistency and compression."""

import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np

from maskcast.data.clip_store.compression import LayerCompressor
from maskcast.data.clip_store.finished import FinishedClip, FinishedClips
from maskcast.forking import ForkedFunction
from maskcast.inference.excluded_classes import ClassCounts
from maskcast.inference.predictions import MeanConfidence, Predictions, count_frames, quantise
from maskcast.inference.streaming_consistency import StreamingConsistency
from maskcast.labels import LabelMap
from maskcast.resources import num_cpus

MAX_WAITING = 2  # most pieces per processor that wait for compression
CLASS_COUNTS = "class_counts"  # key in the JSON about a finished clip, see ``ClassCounts``


class Packer:
    """Makes predictions consistent if asked to, compresses them, and saves each complete clip.

    Args:
        maps: the label maps to write.
        levels: number of steps to which confidence is rounded.
        consistent_frames: see ``segment``.
        counts: number of frames of each clip.
        finished: stores the clips.
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
        self._frames_left, self._finished = list(counts), finished
        self._buffers: dict[int, _ClipBuffer] = {}

    def __call__(self, number: int, predictions: Predictions) -> None:
        """Adds frames of a clip; the frames of one clip must come in order."""
        if number not in self._buffers:
            self._buffers[number] = _ClipBuffer(self.maps, self.levels, self.consistent_frames)
        self._buffers[number].add(predictions)
        self._frames_left[number] -= count_frames(predictions)
        if not self._frames_left[number]:
            self._finished.save(number, self._buffers.pop(number).finish())


def parallel_packers(packer: Packer, pixels: int) -> list[Packer | ForkedFunction]:
    """Returns a packer for each processor, to work in parallel.

    If frames are made consistent, each is a copy in a process of its own. Half of that work is Python code, for
    which two threads would be slower than one because of Python's lock.

    Args:
        packer: packs in a thread.
        pixels: number in the largest piece.
    """
    count = num_cpus()
    if packer.consistent_frames is None or count == 1 or sys.platform != "linux":  # elsewhere forks are not safe
        return [packer] * count
    # at most a byte and a float per pixel, and a float per class, if all pixels are foreground
    numbers = sum(5 + 4 * label_map.num_classes for label_map in packer.maps)
    return [ForkedFunction(packer, pixels * numbers, "makes masks consistent") for _ in range(count)]


class ParallelPacking:
    """Packs many clips in parallel, each with one of the packers.

    Args:
        packers: each is used in a thread of its own.
    """

    def __init__(self, packers: Sequence[Packer | ForkedFunction]) -> None:
        self._packers = packers
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="packing") for _ in packers]
        self._running: deque[Future[None]] = deque()

    def add(self, number: int, predictions: Predictions) -> None:
        """Adds frames of a clip; the frames of one clip must come in order."""
        index = number % len(self._threads)
        self._running.append(self._threads[index].submit(self._packers[index], number, predictions))
        while len(self._running) > MAX_WAITING * len(self._threads):
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


class _ClipBuffer:
    """The compressed masks of a clip that is not complete yet."""

    def __init__(self, maps: Sequence[LabelMap], levels: int, consistent_frames: int | None) -> None:
        self._levels, self._mean, self._classes = levels, MeanConfidence(), ClassCounts()
        self._consistency = (
            None if consistent_frames is None else StreamingConsistency(consistent_frames, self._classes.add)
        )
        self._masks = {label_map.name: LayerCompressor() for label_map in maps}
        self._sure = {label_map.name: LayerCompressor() for label_map in maps if label_map.kind == "classes"}

    def add(self, predictions: Predictions) -> None:
        """Adds the predictions of the next frames."""
        for piece in [predictions] if self._consistency is None else self._consistency.add(predictions):
            self._pack(piece)

    def _pack(self, predictions: Predictions) -> None:
        for name, packer in self._masks.items():
            packer.add(predictions[name].masks)
        for name, packer in self._sure.items():
            confidence = predictions[name].confidence
            assert confidence is not None
            sure = confidence if confidence.dtype == np.uint8 else quantise(confidence, self._levels)
            packer.add(sure)
            self._mean.add(predictions[name].masks, sure)

    def finish(self) -> FinishedClip:
        """Returns the complete clip."""
        for piece in [] if self._consistency is None else self._consistency.end():
            self._pack(piece)
        masks, sure = ({name: one.finish() for name, one in each.items()} for each in (self._masks, self._sure))
        meta = {"mean_confidence": self._mean.value} if sure else {}
        return FinishedClip(masks, sure, meta | {CLASS_COUNTS: self._classes.counts})
