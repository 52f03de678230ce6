"""Opens and decodes video files; frames are upright.

Shapes: H rows, W columns.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from maskcast.errors import MaskcastError, is_disk_full
from maskcast.reading import LFS_POINTER, is_lfs_pointer

LIMITED_RANGE = 1  # FFmpeg's limited color range, in which 16 is black and 235 is white
CAMERA_TIMEOUT_S = 10.0  # seconds of silence after which a network camera counts as lost
MATROSKA_SEGMENT = b"\x18\x53\x80\x67"  # Matroska's element that contains all others


@contextmanager
def open_video(path: Path, threads: str = "SLICE") -> Iterator[tuple[Any, Any]]:
    """Opens a file and its first video stream; errors inside the block become one line about the file.

    Args:
        path: the file.
        threads: `SLICE`, or `AUTO` if so much is decoded that starting threads for frames pays.
    """
    if not path.is_file():
        raise MaskcastError(f"{path}: video not found; fix the path")
    import av  # takes a tenth of a second, which help texts and pipelines' DAGs can do without

    try:
        with _open_container(f"file:{path}") as container:  # without `file:`, 12:30.mp4 would be a URL
            stream = _first_video(container, path)
            stream.thread_type = threads
            try:
                yield container, stream
            finally:
                # Waits for the threads of frames without Python's lock. To close the file waits with it, and a
                # thread that logs an error needs it, if any package has turned on PyAV's logging.
                stream.codec_context.flush_buffers()
    except (av.FFmpegError, OSError) as error:
        if is_disk_full(error):  # of an output that is written at the same time
            raise
        if is_lfs_pointer(path):
            raise MaskcastError(f"{path}: {LFS_POINTER}") from error
        raise MaskcastError(
            f"{path}: damaged or not a video ({_reason(error)}); copy it again from its origin"
        ) from error


@contextmanager
def open_camera(address: str) -> Iterator[tuple[Any, Any]]:
    """Opens a camera and its first video stream.

    Args:
        address: a Video4Linux device, e.g. `/dev/video0`, or a URL that FFmpeg can open.

    Raises:
        MaskcastError: if it does not exist or answer; also inside the block if the connection is lost.
    """
    import av

    device = address.startswith("/")
    options: dict[str, Any] = {"format": "v4l2"} if device else {"timeout": (CAMERA_TIMEOUT_S, CAMERA_TIMEOUT_S)}
    try:
        with _open_container(address, **options) as container:
            yield container, _first_video(container, address)
    except (av.FFmpegError, OSError) as error:
        if is_disk_full(error):
            raise
        remedy = "`ls /dev/video*` lists the devices" if device else "fix the address, or start it"
        raise MaskcastError(f"{address}: camera not found or disconnected ({_reason(error)}); {remedy}") from error


def _open_container(address: str, **options: Any) -> Any:
    """Returns an opened container; titles of old files may have any encoding."""
    import av

    if int(av.__version__.partition(".")[0]) < 19:  # later versions know no other way and no such argument
        options["metadata_errors"] = "replace"
    return av.open(address, **options)


def _first_video(container: Any, what: object) -> Any:
    """Returns the first video stream of a container; errors call it `what`."""
    import av

    cover = av.stream.Disposition.attached_pic  # cover art is a stream, too
    streams = [one for one in container.streams.video if not one.disposition & cover]
    if not streams:
        raise MaskcastError(f"{what}: has no video stream; give a video file, or copy it again")
    if streams[0].codec_context is None:
        raise MaskcastError(f"{what}: damaged, or its codec is not supported; encode it as H.264")
    return streams[0]


def _reason(error: Exception) -> object:
    return getattr(error, "strerror", None) or error


def decode_frames(
    path: Path | None,
    container: Any,
    stream: Any,
    audio: Any = None,
    on_audio: Callable[[Any], None] | None = None,
) -> Iterator[Any]:
    """Yields the frames from where the container stands.

    Args:
        path: the file; None for a camera, whose end is not checked.
        container: opened container.
        stream: its video stream.
        audio: an audio stream.
        on_audio: receives each packet of `audio` in its order between the frames, and an empty packet at the end.

    Raises:
        MaskcastError: after the last frame, if the file is cut short.
    """
    last = None
    streams = [stream] if on_audio is None else [stream, audio]
    with suppress(IndexError):
        # At the end PyAV also flushes streams that started late and that it does not know; ours comes before
        # these.
        for packet in container.demux(streams):
            if packet.stream.index != stream.index:
                assert on_audio is not None
                on_audio(packet)
                continue
            yield from packet.decode()
            last = packet if packet.size else last
    if path is None:
        return
    if last is not None and last.is_corrupt:
        raise truncated_error(path, "the last frame is not whole")
    check_complete(path, container, stream)


def truncated_error(path: Path, reason: str) -> MaskcastError:
    """Returns the error for a file whose end is missing."""
    return MaskcastError(f"{path}: the video is cut short ({reason}); copy it again from its origin")


def damaged_error(path: Path, frame: int) -> MaskcastError:
    """Returns the error for an incomplete frame."""
    return MaskcastError(f"{path}: frame {frame} is damaged; copy the video again from its origin")


def check_complete(path: Path, container: Any, stream: Any) -> None:
    """Raises an error if a file is cut short, even if all that is left can be decoded."""
    size = path.stat().st_size
    end = 0
    if container.format.name.startswith("mov,"):
        end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    elif container.format.name.startswith("matroska,"):
        with path.open("rb") as file:
            head = file.read(4096)
        place = head.find(MATROSKA_SEGMENT) + len(MATROSKA_SEGMENT)
        if place >= len(MATROSKA_SEGMENT) and place < len(head) and head[place]:
            width = 9 - head[place].bit_length()
            length = int.from_bytes(head[place : place + width]) & ((1 << 7 * width) - 1)
            end = place + width + length if length != (1 << 7 * width) - 1 else 0  # all bits set: length unknown
    if end > size:
        raise truncated_error(path, f"{size} of {end} bytes are present")


def to_rgb(frame: Any) -> np.ndarray:
    """Returns a decoded frame as (H, W, 3) uint8 RGB, rotated and mirrored as the file specifies."""
    return _rotated(_pixels(frame), _matrix_of(frame))


class UprightConverter:
    """Does what ``to_rgb`` does for frames of a video, but reads the display matrix only if rotation changes.

    When side data of a frame is accessed, PyAV creates a reference cycle. The pixels then stay in memory until
    Python's garbage collector runs, which amounts to gigabytes for large frames.
    """

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._matrix: list[int] = []

    def __call__(self, frame: Any) -> np.ndarray:
        """Returns a frame as (H, W, 3) uint8 RGB."""
        if frame.rotation != self._rotation:
            self._rotation, self._matrix = frame.rotation, _matrix_of(frame)
        return _rotated(_pixels(frame), self._matrix)


def _pixels(frame: Any) -> np.ndarray:
    """Returns a frame as (H, W, 3) uint8 RGB, as stored."""
    rgb: np.ndarray = frame.to_ndarray(format="rgb24")
    if frame.format.name.startswith("gray") and frame.color_range == LIMITED_RANGE:  # FFmpeg assumes full range
        rgb = ((rgb.astype(np.float32) - 16) * (255 / 219)).round().clip(0, 255).astype(np.uint8)
    return rgb


def _matrix_of(frame: Any) -> list[int]:
    """Returns the display matrix of a frame, row by row, or an empty list."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return [] if matrix is None else np.frombuffer(matrix, np.int32).tolist()


def _rotated(rgb_HWC: np.ndarray, matrix: list[int]) -> np.ndarray:
    if matrix:
        # A point (x, y) is displayed at (a x + c y, b x + d y); the nearest multiple of 90 degrees is used.
        a, b, _, c, d = matrix[:5]
        if abs(b) > abs(a):
            rgb_HWC, a, d = rgb_HWC.transpose(1, 0, 2), c, b
        rgb_HWC = rgb_HWC[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(rgb_HWC)
