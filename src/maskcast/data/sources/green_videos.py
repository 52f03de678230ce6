"""The videos of a green-screen source: a video file, the images of a folder, a still image, or a rendered one.

Shapes: T frames, H rows, W columns, C = 3 channels (RGB).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from maskcast.data.footage import Footage
from maskcast.data.images import IMAGE_SUFFIXES, resize_frames
from maskcast.data.video_files.frames import VIDEO_SUFFIXES, frame_rate
from maskcast.errors import MaskcastError
from maskcast.files import list_files
from maskcast.labels import natural_sort_key
from maskcast.simulator.figures import background_length, simulate_background, simulate_green_screen

RenderedKind = Literal["figures", "background"]


class Video(Protocol):
    """A video, which can be pickled."""

    @property
    def rate(self) -> float:
        """Frames per second."""

    def count(self) -> int:
        """Returns the number of frames."""

    def frame_size(self) -> tuple[int, int]:
        """Returns height and width."""

    def read(self, indices: Sequence[int], size: tuple[int, int]) -> np.ndarray:
        """Returns the frames (T, H, W, C) uint8 with these numbers, resized to ``size`` (height, width)."""


@dataclass(frozen=True)
class VideoFiles:
    """A video file, or image files in order.

    Attributes:
        default_rate: frames per second of images, and of a video that does not state it.
        files: the video, or one image per frame.
    """

    default_rate: float
    files: Footage

    def __str__(self) -> str:
        return str(self.files.files[0])

    @property
    def rate(self) -> float:
        """Frames per second."""
        return (self.files.video and frame_rate(self.files.video)) or self.default_rate

    def count(self) -> int:
        """Returns the number of frames."""
        return self.files.count()

    def frame_size(self) -> tuple[int, int]:
        """Returns height and width."""
        return self.files.part([0]).read(None)[1]

    def read(self, indices: Sequence[int], size: tuple[int, int]) -> np.ndarray:
        """Returns the frames with these numbers, each resized as it is read."""
        return self.files.part(indices).read(size)[0]


@dataclass(frozen=True)
class RenderedVideo:
    """A rendered video.

    Attributes:
        rate: frames per second.
        kind: figures in front of a green screen, or a background.
        seed: of the rendering.
        frames: number of frames; a still background has only one.
        size: height and width.
    """

    rate: float
    kind: RenderedKind
    seed: int
    frames: int
    size: tuple[int, int]

    def count(self) -> int:
        """Returns the number of frames."""
        return background_length(self.seed, self.frames) if self.kind == "background" else self.frames

    def frame_size(self) -> tuple[int, int]:
        """Returns height and width."""
        return self.size

    def read(self, indices: Sequence[int], size: tuple[int, int]) -> np.ndarray:
        """Returns the frames with these numbers, resized to ``size``."""
        return resize_frames(self._drawn()[list(indices)], *size)

    def _drawn(self) -> np.ndarray:
        height, width = self.size
        if self.kind == "background":
            return simulate_background(self.seed, frames=self.frames, height=height, width=width)
        return simulate_green_screen(self.seed, frames=self.frames, height=height, width=width)[0]


def find_videos(folder: Path, rate: float, *, stills: bool = False) -> dict[str, Video]:
    """Returns the videos below a folder by name: video files, and the images of each folder.

    Args:
        folder: where to look.
        rate: frames per second of images, and of videos that do not state it.
        stills: whether each image directly in ``folder`` is a video of its own.

    Raises:
        MaskcastError: if the folder does not exist or has no videos, or two videos have the same name.
    """
    if not folder.is_dir():
        raise MaskcastError(f"{folder}: folder not found; fix its path in prepare_clips.source, or create it")
    found: dict[str, tuple[str, list[Path]]] = {}  # name and files, by the path of the video or folder
    paths = list_files(folder)
    names = [path.relative_to(folder).as_posix() for path in paths]
    stems = Counter(name.rpartition(".")[0] for name in names)
    for name, path in sorted(zip(names, paths, strict=True), key=lambda one: natural_sort_key(one[0])):
        suffix = path.suffix.lower()
        unique_name = name.rpartition(".")[0] if stems[name.rpartition(".")[0]] == 1 else name
        if suffix in VIDEO_SUFFIXES or (suffix in IMAGE_SUFFIXES and stills and path.parent == folder):
            found[name] = unique_name, [path]
        elif suffix in IMAGE_SUFFIXES:
            parent = name.rpartition("/")[0]
            found.setdefault(parent, (parent or folder.name, []))[1].append(path)
    if not found:
        raise MaskcastError(f"{folder}: no videos or images found; add some, or fix the folder's path")
    videos: dict[str, Video] = {}
    first: dict[str, Path] = {}
    for clip_name, files in found.values():
        name = clip_name.replace("/", "_").replace(".", "_")
        if name in first:
            raise MaskcastError(
                f"{files[0]}: belongs to the video {name!r}, and so does {first[name]}; rename the file or folder "
                "of one"
            )
        first[name] = files[0]
        is_video = files[0].suffix.lower() in VIDEO_SUFFIXES
        videos[name] = VideoFiles(rate, Footage(video=files[0]) if is_video else Footage(files))
    return videos


def first_files(videos: Mapping[str, Video]) -> dict[str, Path]:
    """Returns the file, or the first image, of each video that is not rendered, by name."""
    return {name: video.files.files[0] for name, video in videos.items() if isinstance(video, VideoFiles)}
