"""Opening and decoding a video file: its frames as their owner sees them.

Shapes: H rows, W columns.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.errors import MaskcastError

LIMITED = 1  # FFmpeg's color range of which 16 is black and 235 white
SEGMENT = b"\x18\x53\x80\x67"  # Matroska's element that holds all others


@contextmanager
def opened(path: Path, threads: str = "SLICE") -> Iterator[tuple[Any, Any]]:
    """Opens a file and its first video stream; errors inside the block become one line about the file.

    Args:
        path: the file.
        threads: `SLICE`, or `AUTO` where so much is decoded that threads for frames are worth their start.
    """
    if not path.is_file():
        raise MaskcastError(f"{path}: no such video")
    import av  # a tenth of a second, that a help or a pipeline's DAG has no use for

    cover = av.stream.Disposition.attached_pic  # a picture beside the video is a stream, too
    try:
        # A name like 12:30.mp4 would be taken for an address; titles of old files are in any encoding.
        with av.open(f"file:{path}", metadata_errors="replace") as container:
            streams = [one for one in container.streams.video if not one.disposition & cover]
            if not streams:
                raise MaskcastError(f"{path}: holds no video stream; give a video file, or copy it again")
            if streams[0].codec_context is None:
                raise MaskcastError(f"{path}: damaged, or of a codec that is not known here; encode it as H.264")
            streams[0].thread_type = threads
            yield container, streams[0]
    except (av.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MaskcastError(f"{path}: damaged or no video ({reason}); copy it again from its origin") from error


def decoded(path: Path, container: Any, stream: Any) -> Iterator[Any]:
    """Yields the frames from where the container stands.

    Raises:
        MaskcastError: after the last frame, if the file ends before its frames do.
    """
    last = None
    with suppress(IndexError):
        # At the end PyAV also flushes streams that began in the middle, which it does not know; ours was before.
        for packet in container.demux(stream):
            yield from packet.decode()
            last = packet if packet.size else last
    if last is not None and last.is_corrupt:
        raise cut_short(path, "the last frame is not whole")
    check_end(path, container, stream)


def cut_short(path: Path, reason: str) -> MaskcastError:
    """Returns the error of a file that lacks its end."""
    return MaskcastError(f"{path}: the video is cut short ({reason}); copy it again from its origin")


def damaged(path: Path, frame: int) -> MaskcastError:
    """Returns the error of a frame that is not whole."""
    return MaskcastError(f"{path}: frame {frame} is damaged; copy the video again from its origin")


def check_end(path: Path, container: Any, stream: Any) -> None:
    """Raises an error where a file ends before its frames do, although what is there can be decoded."""
    size = path.stat().st_size
    end = 0
    if container.format.name.startswith("mov,"):
        end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    elif container.format.name.startswith("matroska,"):
        with path.open("rb") as file:
            head = file.read(4096)
        place = head.find(SEGMENT) + len(SEGMENT)
        if place >= len(SEGMENT) and place < len(head) and head[place]:
            width = 9 - head[place].bit_length()
            length = int.from_bytes(head[place : place + width]) & ((1 << 7 * width) - 1)
            end = place + width + length if length != (1 << 7 * width) - 1 else 0  # all ones: not said
    if end > size:
        raise cut_short(path, f"{size} of {end} bytes are there")


def rgb_of(frame: Any) -> np.ndarray:
    """Returns a decoded frame as (H, W, 3) uint8 RGB, turned and mirrored as the file says that it is shown."""
    rgb = frame.to_ndarray(format="rgb24")
    if frame.format.name.startswith("gray") and frame.color_range == LIMITED:  # FFmpeg takes all grey for full
        rgb = ((rgb.astype(np.float32) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
    for data in frame.side_data:
        if data.type.name == "DISPLAYMATRIX":
            # A point (x, y) is shown at (a x + c y, b x + d y); the nearest right angle is taken.
            a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
            if abs(b) > abs(a):
                rgb, a, d = rgb.transpose(1, 0, 2), c, b
            rgb = rgb[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(rgb)
