"""Frames on disk: those of a video file, or images in order.

Shapes: T frames, H rows, W columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskcast.data.images import Size, read_resized_frames
from maskcast.data.video_files.frames import count_frames, read_resized_video

ReadVideo = Callable[[Path, Sequence[int] | None, Size | None], tuple[np.ndarray, Size]]  # `read_resized_video`


@dataclass(frozen=True)
class Footage:
    """The frames of a video file, or images.

    Attributes:
        images: one file per frame; empty for a video.
        video: the video file; None for images.
        frames: numbers of frames in the video, ascending; None for all of them, or for images.
    """

    images: Sequence[Path] = ()
    video: Path | None = None
    frames: Sequence[int] | None = None

    def part(self, frames: Sequence[int]) -> "Footage":
        """Returns some frames of all, by their numbers from 0."""
        if self.video is None:
            return Footage([self.images[number] for number in frames])
        return Footage(video=self.video, frames=frames)

    @property
    def files(self) -> Sequence[Path]:
        """The images, or the video alone."""
        return self.images if self.video is None else [self.video]

    def file_of(self, t: int) -> Path:
        """Returns the file that holds frame ``t``."""
        return self.video or self.images[t]

    def count(self) -> int:
        """Returns the number of all frames; of a video, this may decode it.

        Raises:
            MaskcastError: if the video is damaged.
        """
        return len(self.images) if self.video is None else count_frames(self.video)

    def read(self, size: Size | None, read_video: ReadVideo = read_resized_video) -> tuple[np.ndarray, Size]:
        """Reads the frames.

        Args:
            size: (height, width) to resize each frame to as it is read; None keeps its size.
            read_video: reads frames of a video.

        Returns:
            The frames (T, H, W, 3) uint8, and the size that they had.

        Raises:
            MaskcastError: on unreadable files, or images that differ in size.
        """
        if self.video is None:
            return read_resized_frames(self.images, size)
        return read_video(self.video, self.frames, size)
