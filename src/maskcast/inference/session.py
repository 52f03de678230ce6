"""Segments a video frame by frame, with a result for each frame at once.

Legend: H height, W width, C = 3 colour channels.
"""

from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple, Self

import numpy as np

from maskcast.errors import MaskcastError
from maskcast.inference.cuts import CutDetector
from maskcast.inference.predictions import ClassLogits, Predictions
from maskcast.inference.segment import segment
from maskcast.inference.worker import Worker
from maskcast.reading import as_array

Reset = Literal["", "size", "cut"]


class Step(NamedTuple):
    """A session's predictions for one frame."""

    maps: dict[str, np.ndarray]
    """(H, W) uint8 of each label map, by name: class ids, or opacity, 255 = 1."""
    confidence: dict[str, np.ndarray]
    """(H, W) float32 of each map of classes: the probability of a pixel's class."""
    reset: Reset
    """Why the state was reset before this frame (another size, or a new shot); else empty."""

    def __repr__(self) -> str:
        maps = ", ".join(f"{name} {'x'.join(map(str, mask.shape))}" for name, mask in self.maps.items())
        return f"<Step: {maps}{f'; reset: {self.reset}' if self.reset else ''}>"


class Session:
    """Segments one video.

    Frames are masked as by ``segment`` with batches of one frame, and memory does not grow. The segmenter's state
    is reset by ``reset``, before a frame of another size and at a new shot. Only one thread may use a session at a
    time.

    Args:
        worker: runs the segmenter; sessions may share it if the segmenter has no state.
        cuts: whether the state is reset at a new shot (see ``CutDetector``).

    Attributes:
        logits: those of the last frame for each map of classes, by name, if the worker returns them.
    """

    def __init__(self, worker: Worker, *, cuts: bool = True) -> None:
        self._worker, self._cuts = worker, cuts
        self.logits: dict[str, ClassLogits] = {}
        self._size: tuple[int, ...] | None = None
        self._ended = False
        self.reset()

    def step(self, frame: np.ndarray) -> Step:
        """Masks the next frame of the video.

        Args:
            frame: (H, W, C) uint8 RGB.

        Raises:
            MaskcastError: the frame has a wrong type or shape or does not fit into memory, or the session has
                ended. The state is reset if a frame cannot be masked.
        """
        if self._ended:
            raise MaskcastError("session: it has ended; open another one")
        expected = "uint8 of shape (any, any, 3)"
        frame_HWC = as_array(frame, "frame", expected)
        if frame_HWC.dtype != np.uint8 or frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3 or not frame_HWC.size:
            raise MaskcastError(f"frame: got {frame_HWC.dtype} of shape {frame_HWC.shape}; give {expected}")
        reset_reason: Reset = ""
        if self._size not in (None, frame_HWC.shape):
            reset_reason = "size"
        elif self._cuts and self._cut(frame_HWC):
            reset_reason = "cut"
        if reset_reason:
            self.reset()
            self._cut(frame_HWC)
        self._size = frame_HWC.shape
        self._pending.append(frame_HWC[None])
        try:
            predictions = next(self._predictions)
        except BaseException:  # also Ctrl-C: the state may be incomplete
            self.reset()
            raise
        maps = {name: one.masks[0] for name, one in predictions.items()}
        sure = {name: one.confidence[0] for name, one in predictions.items() if one.confidence is not None}
        self.logits = {name: one.logits[0] for name, one in predictions.items() if one.logits is not None}
        return Step(maps, sure, reset_reason)

    def reset(self) -> None:
        """Resets the state: the next frame is the first of a video."""
        self._pending: deque[np.ndarray] = deque()
        self._worker.state = ()
        self._predictions: Iterator[Predictions] = segment(self._worker, self._frames(), batch_size=1)
        self._size = None
        self._cut = CutDetector()

    def close(self) -> None:
        """Ends the session and drops its state; further calls do nothing."""
        self.reset()
        self._ended = True

    def _frames(self) -> Iterator[np.ndarray]:
        while True:
            yield self._pending.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
