"""Writes videos: of a forecast (context frames with masks, then forecast masks), and of a stream of images.

Legend: T context frames, h horizon, H height, W width, C = 3 channels (RGB); arrays are uint8.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from PIL import Image

from maskcast.data.images import resize_masks
from maskcast.errors import MaskcastError
from maskcast.report.overlays import Row, grid, overlay
from maskcast.report.paint import class_entries
from maskcast.report.pictures import GIF_MS, LAST_FRAMES, write_gif
from maskcast.serving.audio import AudioTrack

FPS = Fraction(1000, GIF_MS)
CELL_WIDTHS = (320, 640)
MAX_DRAWN = 8  # futures beside the forecast
CODECS = ("libx264", "mpeg4")  # browsers play the first; every FFmpeg has the second
MPEG4_UNITS = 2**16 - 1  # most units of time in a second that MPEG-4 can state


def draw_frames(
    frames_THWC: np.ndarray,
    seen_THW: np.ndarray,
    future: Sequence[np.ndarray],
    classes: Sequence[str],
    title: str,
    times: Sequence[str],
) -> list[Image.Image]:
    """Returns one image per frame: context frames overlaid with masks, then the forecast masks.

    The first few futures are drawn beside the forecast.

    Args:
        frames_THWC: in the size of the video, to which masks are enlarged.
        seen_THW: the context masks.
        future: masks (h, H, W): the forecast, then drawn futures.
        classes: names by id; those that occur are listed below each image.
        title: shown above each image.
        times: shown with each image, e.g. the number of its frame.
    """
    size = frames_THWC.shape[1:3]
    shown = future[: MAX_DRAWN + 1]
    masks = [resize_masks(np.concatenate([seen_THW, future_hHW]), *size) for future_hHW in shown]
    names = ["forecast", *(f"future {number}" for number in range(1, len(shown)))]
    columns = math.ceil(len(shown) ** 0.5)
    widths = (CELL_WIDTHS[0], max(CELL_WIDTHS[0], CELL_WIDTHS[1] // columns))
    legend = class_entries([seen_THW, *shown], classes)
    pictures = []
    for t in range(len(masks[0])):
        seen = t < len(frames_THWC)
        cells = [overlay(frames_THWC[t] if seen else None, mask_THW[t]) for mask_THW in masks]
        captions = [f"{times[t]}, {'seen' if seen else name}" for name in names]
        parts = [slice(first, first + columns) for first in range(0, len(shown), columns)]
        rows = [Row("", cells[part], captions[part]) for part in parts]
        pictures.append(grid(rows, title, widths, legend))
    return pictures


def write_video(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Writes images as a video in the format of the file's suffix.

    Raises:
        MaskcastError: the suffix is neither ``.mp4`` nor ``.gif``, or the folder is missing.
    """
    writers = {".mp4": _write_mp4, ".gif": write_gif}
    if path.suffix not in writers:
        raise MaskcastError(f"{path}: unsupported suffix; use {' or '.join(writers)}")
    if not path.parent.is_dir():
        raise MaskcastError(f"{path}: folder {path.parent} not found; create it first")
    writers[path.suffix](path, pictures)


def _write_mp4(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Writes a video at `FPS`, in which the last image is held."""
    width, height = pictures[0].size
    with VideoWriter(path, height, width, FPS) as writer:
        for time, picture in enumerate([*pictures, *[pictures[-1]] * (LAST_FRAMES - 1)]):
            writer.add(np.asarray(picture), time)


class VideoWriter:
    """A video file in H.264 (MPEG-4 if FFmpeg has no encoder for that), which can be streamed.

    Args:
        path: the file, with suffix ``.mp4``.
        height: rows of each image.
        width: columns of each image.
        rate: images per second, as far as known.
        unit: unit of times in seconds; None for 1 / rate.
        sound: audio stream of an open input, whose packets are passed to ``add_audio``.
    """

    def __init__(
        self, path: Path, height: int, width: int, rate: Fraction, unit: Fraction | None = None, sound: Any = None
    ) -> None:
        codec = next(name for name in CODECS if name in av.codecs_available)
        # chroma subsampling needs even sides
        self._margins = [(0, height % 2), (0, width % 2), (0, 0)]
        self._unit = self._written_unit = unit or 1 / rate
        if codec == "mpeg4" and self._unit.denominator > MPEG4_UNITS:  # e.g. 90 kHz; the rate's frames stay exact
            self._written_unit = Fraction(1, MPEG4_UNITS // rate.numerator * rate.numerator or MPEG4_UNITS)
        self._last = -1
        self._container = av.open(f"file:{path}", "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream(codec, rate=rate)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt, self._stream.codec_context.time_base = "yuv420p", self._written_unit
        self._track = None if sound is None else AudioTrack(self._container, sound)

    def add(self, picture_HWC: np.ndarray, time: int) -> None:
        """Adds an image (H, W, C), shown from ``time`` on, which must increase."""
        frame = av.VideoFrame.from_ndarray(np.pad(picture_HWC, self._margins, "edge"), format="rgb24")
        self._last = max(self._last + 1, round(time * self._unit / self._written_unit))
        frame.pts, frame.time_base = self._last, self._written_unit
        self._container.mux(self._stream.encode(frame))

    def add_audio(self, packet: Any, start: Fraction) -> None:
        """Adds an audio packet, whose times count from ``start`` seconds."""
        assert self._track is not None
        self._track.add(packet, start)

    def close(self) -> None:
        """Flushes the encoders and closes the file."""
        self._container.mux(self._stream.encode(None))
        if self._track is not None:
            self._track.end()
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            with suppress(av.FFmpegError):  # the cause has already been raised
                self._container.close()
