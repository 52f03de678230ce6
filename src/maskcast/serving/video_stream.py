"""Reads videos frame by frame, from a file, a folder of images or a camera, in bounded memory.

Legend: H height, W width, C = 3 channels (RGB); frames are uint8.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.data.frame_names import frame_files, is_image
from maskcast.data.images import read_image
from maskcast.data.video_files.file import UprightConverter, damaged_error, decode_frames, open_camera, open_video
from maskcast.errors import MaskcastError
from maskcast.progress import say
from maskcast.reading import pluralize
from maskcast.redaction import redacted

CAMERA = re.compile(r"(/dev/video\d+|(rtsps?|https?)://\S+)")
FOLDER_RATE = Fraction(25)  # frame rate of folders of images
OnAudio = Callable[[Any, Fraction], None]  # takes an audio packet, and the second at which the video starts


@dataclass(frozen=True)
class VideoStream:
    """An open video.

    Attributes:
        rate: frames per second, as far as known.
        unit: unit of the frames' times in seconds.
        total: number of frames according to the file, if known; it may be wrong.
        sound: its audio stream, if there is one with a known codec.
        play: yields each frame (H, W, C) with its time; passes audio packets to its argument.
    """

    rate: Fraction
    unit: Fraction
    total: int | None
    sound: Any
    play: Callable[[OnAudio], Iterator[tuple[np.ndarray, int]]]


def is_camera(address: str) -> bool:
    """Whether an address is that of a camera."""
    return CAMERA.fullmatch(address) is not None


def camera_name(address: str) -> str:
    """Returns the name for a camera's output, e.g. `video0`."""
    last = redacted(address).split("?")[0].rstrip("/").rpartition("/")[2].rpartition("@")[2]
    return re.sub(r"[^A-Za-z0-9_.-]", "_", last).strip(".") or "camera"


@contextmanager
def open_stream(video: Path | str) -> Iterator[VideoStream]:
    """Opens a video.

    Args:
        video: a video file, a folder of images in the numeric order of their names, an image, or the address of a
            camera.

    Raises:
        MaskcastError: the video is not found or damaged, or frames differ in size.
    """
    if isinstance(video, str):
        with open_camera(video) as (container, stream):
            yield _stream(video, container, stream)
    elif video.is_dir() or is_image(video):
        files = frame_files(video)

        def images(_: OnAudio) -> Iterator[tuple[np.ndarray, int]]:
            return _of_one_size(video, ((read_image(file), k) for k, file in enumerate(files)), files)

        yield VideoStream(FOLDER_RATE, 1 / FOLDER_RATE, len(files), None, images)
    else:
        with open_video(video, "AUTO") as (container, stream):
            yield _stream(video, container, stream)


def _stream(video: Path | str, container: Any, stream: Any) -> VideoStream:
    """Returns an open video for a container of FFmpeg, of a file or of a camera's address."""
    path = None if isinstance(video, str) else video
    unit = Fraction(stream.time_base)
    rate = Fraction(stream.average_rate or stream.guessed_rate or FOLDER_RATE)
    audio = next((each for each in container.streams.audio if each.codec_context is not None), None)
    start = Fraction(container.start_time or 0, 1_000_000)

    def frames(on_audio: OnAudio) -> Iterator[tuple[np.ndarray, int]]:
        step, second, first = max(1, round(1 / (rate * unit))), round(1 / unit), round(start / unit)
        last, offset, upright = -step, first, UprightConverter()

        def pass_on(packet: Any) -> None:
            on_audio(packet, start + (offset - first) * unit)

        callback = None if audio is None else pass_on
        for number, frame in enumerate(decode_frames(path, container, stream, audio, callback)):
            if frame.is_corrupt and path is not None:
                raise damaged_error(path, number)
            time = last + step if frame.pts is None else frame.pts - offset
            if time < last - second:  # times restart in concatenated files: continue after the last frame
                offset += time - last - step
                time = last + step
            time = max(last + 1, time)
            yield upright(frame), time
            last = time

    def live(on_audio: OnAudio) -> Iterator[tuple[np.ndarray, int]]:
        import av

        count = 0
        try:
            for each in _of_one_size(video, frames(on_audio)):
                yield each
                count += 1
        except (av.FFmpegError, OSError) as error:
            if not count:
                raise
            reason = getattr(error, "strerror", None) or error
            say(f"{video}: stream ended after {pluralize(count, 'frame')} ({reason})")

    if path is None:
        return VideoStream(rate, unit, None, audio, live)
    return VideoStream(
        rate, unit, stream.frames or None, audio, lambda on_audio: _of_one_size(video, frames(on_audio))
    )


def _of_one_size(
    name: Path | str, frames: Iterator[tuple[np.ndarray, int]], files: Sequence[Path] = ()
) -> Iterator[tuple[np.ndarray, int]]:
    """Yields frames after checking their size; ``files`` are their files, if each has one.

    Raises:
        MaskcastError: a frame has another size than the first, or there are no frames.
    """
    first: tuple[int, ...] | None = None
    for number, (frame, time) in enumerate(frames):
        if first is not None and frame.shape != first:
            before, size = ("{}x{}".format(*shape[:2]) for shape in (first, frame.shape))
            if files:
                raise MaskcastError(
                    f"{files[number]}: is {size}, but earlier frames are {before} (height x width); export all "
                    "frames in one size, or remove it. To mask a single photograph, give its path"
                )
            raise MaskcastError(
                f"{name}: the frame size changes at frame {number} (from {before} to {size}, height x width); "
                "give a video with one frame size"
            )
        first = frame.shape
        yield frame, time
    if first is None:
        raise MaskcastError(f"{name}: no frame can be decoded; copy the video again from its source")
