"""Reads consecutive windows of a video file in one pass, so that each of its frames is decoded once.

A video is decoded from a key frame on, which may be hundreds of frames before a window.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskcast.data.images import Size, resize_frame
from maskcast.data.video_files.frames import (
    MAX_SEEKS,
    TIME_TOLERANCE,
    check_one_size,
    decode_wanted,
    read_resized_video,
)
from maskcast.data.video_files.index import VideoIndex
from maskcast.errors import MaskcastError


@dataclass(frozen=True)
class VideoWindow:
    """The frames of a video that a clip has.

    Attributes:
        path: video file.
        frames: their numbers, ascending, maybe repeated.
        index: of the file.
    """

    path: Path
    frames: Sequence[int]
    index: VideoIndex

    def is_continued_by(self, other: "VideoWindow") -> bool:
        """Whether a window begins later in the same video, and not further behind this one than this is long."""
        first, last = self.frames[0], self.frames[-1]
        return self.path == other.path and first < other.frames[0] <= 2 * last - first + 1


class WindowReader:
    """Reads windows in order, each of which continues the one before; frames are kept while a window needs them.

    Args:
        windows: of one video.
    """

    def __init__(self, windows: Sequence[VideoWindow]) -> None:
        self._path = windows[0].path
        self._wanted = sorted({number for window in windows for number in window.frames})
        self._index = windows[0].index.around(self._wanted[0], self._wanted[-1], MAX_SEEKS, TIME_TOLERANCE)
        self._place = 0  # of the next frame to decode in `_wanted`
        self._decoded: Iterator[np.ndarray] | None = None
        self._kept: dict[int, tuple[np.ndarray, Size]] = {}

    def read(self, path: Path, indices: Sequence[int], size: Size | None) -> tuple[np.ndarray, Size]:
        """Reads the next window, as ``read_resized_video`` does; all at one size.

        After an error of a window, the others are read one by one, so that those before and after the damage are
        the same as without the others.

        Raises:
            MaskcastError: as ``read_resized_video``.
        """
        assert path == self._path
        self._kept = {number: frame for number, frame in self._kept.items() if number >= indices[0]}
        try:
            self._decode_until(indices[-1], size)
        except MaskcastError:
            self._place = len(self._wanted)
        if not all(number in self._kept for number in indices):
            return read_resized_video(path, indices, size, self._index)
        frames, sizes = zip(*(self._kept[number] for number in indices), strict=True)
        check_one_size(path, indices, sizes)
        return np.stack(frames), sizes[0]

    def _decode_until(self, last: int, size: Size | None) -> None:
        if self._decoded is None:
            self._decoded = decode_wanted(self._path, self._wanted, self._index)
        while self._place < len(self._wanted) and (number := self._wanted[self._place]) <= last:
            self._kept[number] = resize_frame(next(self._decoded), size)
            self._place += 1
