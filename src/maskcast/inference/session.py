"""A segmenter that is shown a video frame by frame, and answers each at once.

Legend: H height, W width, C = 3 colour channels.
"""

from collections import deque
from collections.abc import Iterator
from typing import Literal, NamedTuple, Self

import numpy as np

from maskcast.data.video_files.cuts import CutDetector
from maskcast.errors import MaskcastError
from maskcast.inference.found import Found
from maskcast.inference.segment import segment
from maskcast.models.segmentation.base import Segmenter
from maskcast.reading import array_of

Reset = Literal["", "size", "cut"]


class Step(NamedTuple):
    """What a session finds in one frame."""

    maps: dict[str, np.ndarray]
    """(H, W) uint8 of each label map, by name: class ids, or opacity, 255 = 1."""
    confidence: dict[str, np.ndarray]
    """(H, W) float32 of each map of classes: the probability of a pixel's class."""
    reset: Reset
    """Why what was remembered was dropped before this frame: its size differs, or a shot begins; else empty."""

    def __repr__(self) -> str:
        maps = ", ".join(f"{name} {'x'.join(map(str, mask.shape))}" for name, mask in self.maps.items())
        return f"<Step: {maps}{f'; reset: {self.reset}' if self.reset else ''}>"


class Session:
    """A video on its way through a segmenter.

    Frames are masked as ``segment`` masks a clip whose batches have one frame. Memory does not grow with them.
    What a segmenter remembers is dropped by ``reset``, and before a frame of another size or the first of a new
    shot. One thread at a time may use it.

    Args:
        segmenter: in eval mode, on the device where it is to run; sessions may share it.
        precision: ``bf16`` or ``fp32``.
        cuts: whether a new shot drops what is remembered (see ``CutDetector``).
    """

    def __init__(self, segmenter: Segmenter, *, precision: str, cuts: bool = True) -> None:
        self._segmenter, self._precision, self._cuts = segmenter, precision, cuts
        self._size: tuple[int, ...] | None = None
        self._ended = False
        self.reset()

    def step(self, frame: np.ndarray) -> Step:
        """Masks the next frame of the video.

        Args:
            frame: (H, W, C) uint8 RGB.

        Raises:
            MaskcastError: the frame has another type or shape, does not fit into the memory, or the session has
                ended. What is remembered is dropped where a frame cannot be masked.
        """
        if self._ended:
            raise MaskcastError("session: it has ended; open another one")
        wanted = "uint8 of shape (any, any, 3)"
        frame_HWC = array_of(frame, "frame", wanted)
        if frame_HWC.dtype != np.uint8 or frame_HWC.ndim != 3 or frame_HWC.shape[2] != 3 or not frame_HWC.size:
            raise MaskcastError(f"frame: got {frame_HWC.dtype} of shape {frame_HWC.shape}; give {wanted}")
        why: Reset = ""
        if self._size not in (None, frame_HWC.shape):
            why = "size"
        elif self._cuts and self._cut(frame_HWC):
            why = "cut"
        if why:
            self.reset()
            self._cut(frame_HWC)
        self._size = frame_HWC.shape
        self._waiting.append(frame_HWC[None])
        try:
            found = next(self._found)
        except BaseException:  # Ctrl-C, too: what is remembered is of half a frame
            self.reset()
            raise
        maps = {name: one.masks[0] for name, one in found.items()}
        sure = {name: one.confidence[0] for name, one in found.items() if one.confidence is not None}
        return Step(maps, sure, why)

    def reset(self) -> None:
        """Drops what is remembered: the next frame is the first of a video."""
        self._waiting: deque[np.ndarray] = deque()
        self._found: Iterator[Found] = segment(
            self._segmenter, self._frames(), batch_size=1, precision=self._precision
        )
        self._size = None
        self._cut = CutDetector()

    def close(self) -> None:
        """Ends the session and drops what is remembered; a second time does nothing."""
        self.reset()
        self._ended = True

    def _frames(self) -> Iterator[np.ndarray]:
        while True:
            yield self._waiting.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
